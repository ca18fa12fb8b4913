"""Free ports on the loopback address, never the same ones for two test processes."""

from __future__ import annotations

import socket
from functools import cache

FIRST = 21_000
BLOCK = 200  # ports of one test process
BLOCKS = 50


@cache
def block() -> tuple[int, socket.socket]:
    """This process's first port, and the abstract socket that claims its block until it ends."""
    for number in range(BLOCKS):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0transcription-tests-{number}")
        except OSError:
            claim.close()
            continue
        return FIRST + number * BLOCK, claim
    raise AssertionError("every block of ports is taken by another test process")


taken: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Consecutive ports that nothing listens on and that were not handed out before."""
    first, _ = block()
    for start in range(first, first + BLOCK - count):
        numbers = list(range(start, start + count))
        if not taken.intersection(numbers) and all(map(is_free, numbers)):
            taken.update(numbers)
            return numbers
    # Round again: what was handed out long ago may be free.
    assert taken, "no free ports"
    taken.clear()
    return free_ports(count)


def ports(workers: int) -> dict[str, str]:
    """Settings of a pool: ports of its balancer, stats page, gateway and so many workers."""
    balancer, stats, live, first, *_ = map(str, free_ports(workers + 3))
    return {
        "LB_PORT": balancer, "STATS_PORT": stats, "LIVE_PORT": live, "WORKER_BASE_PORT": first
    }  # fmt: skip


def is_free(port: int) -> bool:
    """Return whether nothing listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
