"""Harm done to a pool under steady load, and what its clients saw of it.

    make chaos                                       every harm, a minute and 8 events each
    python -m tests.measure.chaos kill reload --seconds 20 --events 3

The load is windows of speech at 70 % of what the pool was measured to do just before, and a
10 MB upload now and then where a change of ours must not lose it. Prints tables, writes
.run/chaos.json, exits 1 when a request failed or something was left behind. Root is needed for
the disks that are filled or made read-only.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np

from app.config import ROOT
from app.process import children
from tests.measure import bench
from tests.support import models
from tests.support.client import TRANSCRIPTIONS
from tests.support.stack import Stack
from tests.support.steady import Arrivals, Load, ask
from tests.support.victim import (
    CALL_LIMIT_S,
    LARGE,
    WEDGE,
    WINDOW,
    Victim,
    harm_device,
    leavers,
    lost,
    wedge,
    worker_id,
)
from tests.support.waiting import until

WORKERS = 3
CLIENTS = 6
SHARE = 0.7
MEASURE_S = 10.0
BACK_S = 90.0
TAKEN_S = 6.0
QUEUE_S = 5
Harm = Callable[["Victim", int], None]


def kill(victim: Victim, event: int) -> None:
    """kill -9 of the process that holds a model"""
    os.kill(victim.child(event), signal.SIGKILL)


def arbiter(victim: Victim, event: int) -> None:
    """kill -9 of a worker's Gunicorn arbiter"""
    masters = victim.arbiters()
    os.kill(masters[event % len(masters)], signal.SIGKILL)


def two(victim: Victim, event: int) -> None:
    """kill -9 of two workers of three at once"""
    for number in (event, event + 1):
        os.kill(victim.child(number), signal.SIGKILL)


def three(victim: Victim, event: int) -> None:
    """kill -9 of all three workers at once"""
    for pid in [victim.child(number) for number in range(WORKERS)]:
        os.kill(pid, signal.SIGKILL)


def only(victim: Victim, event: int) -> None:
    """kill -9 of the only worker of a pool of one"""
    victim.must("scale", WORKERS="1")
    os.kill(victim.child(0), signal.SIGKILL)
    assert until(lambda: victim.up() == 0, 5), "noticed"
    assert until(lambda: victim.up() == 1, BACK_S), victim.lb_status()
    victim.must("scale", WORKERS=str(WORKERS))


def stop(victim: Victim, event: int) -> None:
    """SIGSTOP of a worker's process, for good"""
    os.kill(victim.child(event), signal.SIGSTOP)
    assert until(lambda: victim.up() < victim.all(), 5), "taken out within 5 s"


def full(victim: Victim, event: int) -> None:
    """a worker's device without room for its model, for a while"""
    told = harm_device(victim, event, "oom ever")
    try:
        os.kill(next(children(pid)[0] for pid in victim.arbiters()
                     if worker_id(pid) == int(told.name)), signal.SIGKILL)  # fmt: skip
        assert until(lambda: "out of memory" in victim.lb_status(), 30), victim.lb_status()
    finally:
        told.unlink()


def model(victim: Victim, event: int) -> None:
    """a worker that cannot load its model for a while"""
    file = Path(victim.stack.settings["MODEL_SIZE"]) / "model.bin"
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        os.kill(victim.child(event), signal.SIGKILL)
        assert until(lambda: "model.bin is missing" in victim.lb_status(), 20), victim.lb_status()
    finally:
        away.rename(file)


def port(victim: Victim, event: int) -> None:
    """another program takes a worker's port for a while"""
    number = event % WORKERS
    address = ("127.0.0.1", int(victim.stack.settings["WORKER_BASE_PORT"]) + number)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(next(pid for pid in victim.arbiters() if worker_id(pid) == number + 1), 9)
        assert until(lambda: binds(taken, address), 5)
        taken.listen()
        time.sleep(TAKEN_S)


def disk(victim: Victim, event: int) -> None:
    """the disk for large uploads is full for a while"""
    for number in range(1, WORKERS + 1):  # Python chooses its folder at the first large upload
        assert ask(victim.stack.worker_url(number), LARGE).good
    filler = Path(victim.stack.settings["TMPDIR"]) / "filler"
    with filler.open("wb", buffering=0) as file, until_full():
        while True:
            file.write(bytes(1 << 16))
    refused = large(victim)
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["code"] == "storage_full"
    assert refused.headers["retry-after"]
    filler.unlink()
    assert large(victim).status_code == 200


def unwritable(victim: Victim, event: int) -> None:
    """RUN_DIR cannot be written for a while, and a worker dies meanwhile"""
    folder = victim.stack.run_dir
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        os.kill(victim.child(event), signal.SIGKILL)
        told = victim.command("reload")
        assert told.returncode == 1
        assert "RUN_DIR" in told.stdout, told.stdout
        assert until(lambda: victim.up() < victim.all(), 5)
        assert until(lambda: victim.up() == WORKERS, BACK_S)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    victim.must("reload")


def restart(victim: Victim, event: int) -> None:
    """`make restart`, 10 MB uploads among the load"""
    victim.must("restart")


def scale(victim: Victim, event: int) -> None:
    """`make scale` to 5, to 2 and back to 3, 10 MB uploads among the load"""
    for workers in (5, 2, 3):
        victim.must("scale", WORKERS=str(workers))


def reload(victim: Victim, event: int) -> None:
    """`make reload`, 10 MB uploads among the load"""
    victim.must("reload")


HARMS: dict[str, Harm] = {
    harm.__name__: harm
    for harm in (
        kill, arbiter, two, three, only, stop, wedge, lost, full, model, port, leavers, disk,
        unwritable, restart, scale, reload,
    )
}  # fmt: skip
OURS = ("restart", "scale", "reload")  # changes of ours: not even a large upload may be lost
NEED_ROOT = ("disk", "unwritable")


def binds(taken: socket.socket, address: tuple[str, int]) -> bool:
    try:
        taken.bind(address)
    except OSError:
        return False
    return True


@contextmanager
def until_full() -> Iterator[None]:
    """Go on when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def large(victim: Victim) -> httpx.Response:
    """An upload that goes to the disk."""
    return httpx.post(
        victim.stack.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
        files={"file": ("large.wav", LARGE)}, timeout=120,
    )  # fmt: skip


def capacity(stack: Stack) -> float:
    """Requests a second when there is always another one."""
    with Load(stack.url, [WINDOW] * CLIENTS) as load:
        time.sleep(MEASURE_S)
        done = len(load.waits_s)
    return done / MEASURE_S


def hurt(victim: Victim, name: str, seconds: float, events: int) -> dict[str, object]:
    """Do one kind of harm again and again under load."""
    before = capacity(victim.stack)
    bodies = [WINDOW] * CLIENTS
    if name in OURS:
        bodies[0] = LARGE
    back: list[float] = []
    began = time.monotonic()
    with Load(victim.stack.url, bodies, every_s=CLIENTS / (SHARE * before)) as load:
        for event in range(events):
            time.sleep(max(0.0, began + event * seconds / events - time.monotonic()))
            at = time.monotonic()
            HARMS[name](victim, event)
            # The balancer needs a moment to see it.
            until(lambda: victim.up() < victim.all(), 1.0)
            assert until(lambda: victim.up() == WORKERS, BACK_S), victim.lb_status()
            back.append(time.monotonic() - at)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
    assert until(victim.at_rest, 10), victim.lb_status()
    return {
        "harm": (HARMS[name].__doc__ or name).strip(),
        "events": events,
        "rate": SHARE * before,
        "requests": len(load.answers),
        "failed": load.failure_counts,
        "p50_s": float(np.percentile(load.waits_s, 50)),
        "p95_s": float(np.percentile(load.waits_s, 95)),
        "max_s": max(load.waits_s),
        "back_s": statistics.median(back),
        "capacity_before": before,
        "capacity_after": capacity(victim.stack),
    }


def overload(stack: Stack, seconds: float) -> dict[str, object]:
    """Twice of what the pool can do."""
    victim = Victim(stack)
    can = capacity(stack)
    with Arrivals(stack.url, WINDOW, 2 * can) as load:
        time.sleep(seconds)
        done = len(load.waits_s)
    assert until(victim.at_rest, 10), victim.lb_status()
    can = (can + capacity(stack)) / 2
    refused = [one for one in load.answers if one.outcome == "503"]
    waits_s = [one.seconds for one in refused]
    return {
        "mode": "fail-fast" if stack.settings["FAIL_FAST_WHEN_BUSY"] == "true" else "queue",
        "capacity": can,
        "offered": len(load.answers) / seconds,
        "goodput": done / seconds / can,
        "refused": len(refused),
        "with_retry_after": sum(one.retry_after.isdigit() for one in refused),
        "other": {outcome: n for outcome, n in load.failure_counts.items() if outcome != "503"},
        "refused_p50_s": float(np.percentile(waits_s, 50)),
        "refused_p95_s": float(np.percentile(waits_s, 95)),
        "p95_s": float(np.percentile(load.waits_s, 95)),
    }


def mixed(stack: Stack, seconds: float) -> dict[str, object]:
    """Realtime requests at half of what the pool can do, alone and under a flood of deferred."""
    can = capacity(stack)
    with Arrivals(stack.url, WINDOW, can / 2) as alone:
        time.sleep(seconds / 2)
    with (
        Arrivals(stack.url, WINDOW, 1.5 * can, tier="deferred") as deferred,
        Arrivals(stack.url, WINDOW, can / 2) as realtime,
    ):
        time.sleep(seconds)
    assert until(Victim(stack).at_rest, 10), Victim(stack).lb_status()
    return {
        "realtime": len(realtime.answers),
        "realtime_failed": realtime.failure_counts,
        "alone_p50_s": float(np.percentile(alone.waits_s, 50)),
        "alone_p95_s": float(np.percentile(alone.waits_s, 95)),
        "p50_s": float(np.percentile(realtime.waits_s, 50)),
        "p95_s": float(np.percentile(realtime.waits_s, 95)),
        "deferred": len(deferred.answers),
        "deferred_done": len(deferred.waits_s),
        "deferred_other": deferred.failure_counts,
    }


@contextmanager
def disk_of(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def hurtable(folder: Path, **settings: str) -> Iterator[Victim]:
    """A pool of its own that can be hurt in every way, and waits where it could refuse."""
    with ExitStack() as stack:
        run_dir, uploads, wedged = folder / "run", folder / "uploads", folder / "wedge"
        if os.geteuid() == 0:
            stack.enter_context(disk_of(run_dir, "300m"))
            stack.enter_context(disk_of(uploads, "60m"))
        else:
            uploads.mkdir()
        wedged.mkdir()
        shutil.copytree(models.tiny_en(), folder / "model")
        ways = {
            "DEVICE_CALL_LIMIT_S": str(CALL_LIMIT_S), "MODEL_SIZE": str(folder / "model"),
            "TMPDIR": str(uploads), "WEDGE_DIR": str(wedged), "PYTHONPATH": str(WEDGE),
        }  # fmt: skip
        waiting = {"FAIL_FAST_WHEN_BUSY": "false", "QUEUE_TIMEOUT_S": "30"}
        pool = Stack.started(run_dir, WORKERS=str(WORKERS), **(waiting | settings | ways))
        yield Victim(stack.enter_context(pool))


def harms(folder: Path, names: list[str], seconds: float, events: int) -> list[dict[str, object]]:
    """A pool of its own for all of them, and a line of the table for each."""
    lines = []
    print("| harm | events | requests | failed | p50 | p95 | longest | whole again after |")
    print("|---|---|---|---|---|---|---|---|")
    with hurtable(folder) as victim:
        for name in names:
            line = hurt(victim, name, seconds, events)
            lines.append(line)
            print(
                f"| {line['harm']} | {line['events']} | {line['requests']} | "
                f"{line['failed'] or 0} | {line['p50_s']:.2f} s | {line['p95_s']:.2f} s | "
                f"{line['max_s']:.2f} s | {line['back_s']:.1f} s |",
                flush=True,
            )
            if line["failed"]:
                print(victim.lb_status(), file=sys.stderr)
    return lines


def too_much(folder: Path, seconds: float) -> list[dict[str, object]]:
    """Pools that are asked for more than they can do."""
    lines = []
    for fail_fast in ("true", "false"):
        with Stack.started(
            folder / f"run_{fail_fast}", WORKERS=str(WORKERS), FAIL_FAST_WHEN_BUSY=fail_fast,
            QUEUE_TIMEOUT_S=str(QUEUE_S), MAX_QUEUE_SIZE="1000",
        ) as stack:  # fmt: skip
            line = overload(stack, seconds)
            lines.append(line)
            print(
                f"{line['mode']}: offered {line['offered']:.2f} of {line['capacity']:.2f} "
                f"requests/s; answered {line['goodput']:.0%} of the capacity, p95 "
                f"{line['p95_s']:.2f} s; {line['refused']} refused, {line['with_retry_after']} "
                f"with Retry-After, after {line['refused_p50_s'] * 1000:.0f} ms (p95 "
                f"{line['refused_p95_s'] * 1000:.0f} ms); other answers: {line['other'] or 0}",
                flush=True,
            )
            if fail_fast == "false":
                line = mixed(stack, seconds)
                lines.append(line)
                print(
                    f"realtime under a flood of deferred: p95 {line['p95_s']:.2f} s, alone "
                    f"{line['alone_p95_s']:.2f} s (p50 {line['p50_s']:.2f}, "
                    f"{line['alone_p50_s']:.2f}); {line['realtime_failed'] or 0} failed; "
                    f"{line['deferred_done']} of {line['deferred']} deferred were answered, the "
                    f"others: {line['deferred_other'] or 0}",
                    flush=True,
                )
    return lines


@contextmanager
def busy_loops(wanted: bool) -> Iterator[None]:
    """Another program that uses every core, while the block runs."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1 if wanted else 0)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = [*HARMS, "overload"]
    parser.add_argument("harms", nargs="*", metavar="HARM", help=f"of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--events", type=int, default=8)
    parser.add_argument("--busy", action="store_true", help="with a busy loop on every core")
    chosen = parser.parse_args()
    names = chosen.harms or known
    if unknown := set(names) - set(known):
        parser.error(f"no such harm: {', '.join(unknown)}")
    if os.geteuid() != 0:
        names = [name for name in names if name not in NEED_ROOT]
        print("Not root: no disk is filled or made read-only.")
    lines: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, busy_loops(chosen.busy):
        if some := [name for name in names if name in HARMS]:
            lines += harms(Path(folder), some, chosen.seconds, chosen.events)
        if "overload" in names:
            lines += too_much(Path(folder), chosen.seconds)
    (ROOT / ".run").mkdir(exist_ok=True)
    bench.write("chaos", {"machine": bench.machine(), "lines": lines})
    return 1 if any(line.get(key) for line in lines for key in ("failed", "other")) else 0


if __name__ == "__main__":
    raise SystemExit(main())
