"""Who used this machine's cores during a run: the service, the load, or somebody else.

Figures of a machine on which others are at work are figures of what was left, so it is told.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OTHERS_LIMIT = 0.2  # cores; more of them make a figure doubtful


@dataclass(frozen=True)
class Seconds:
    """CPU time so far: of all cores, of the service's processes, of the load's that ended."""

    busy: float
    service: float
    generator: float

    @classmethod
    def of(cls, pids: Sequence[int]) -> Seconds:
        """Those of now."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(busy(), sum(map(own, pids)), used.ru_utime + used.ru_stime)


@dataclass(frozen=True)
class Cores:
    """Cores used at the mean of a run; on the service's machine the load takes some of them.

    Args:
        others: what neither the service nor the load used; None where the service is elsewhere.
    """

    busy: float
    service: float
    generator: float
    others: float | None

    @classmethod
    def between(cls, before: Seconds, after: Seconds, wall_s: float, local: bool) -> Cores:
        all_of, service, generator = (
            (getattr(after, name) - getattr(before, name)) / wall_s
            for name in ("busy", "service", "generator")
        )
        others = max(0.0, all_of - service - generator) if local else None
        return cls(all_of, service, generator, others)

    @property
    def doubt(self) -> str:
        """Why the figures are of a smaller machine; empty: they are not."""
        if self.others is None or self.others <= OTHERS_LIMIT:
            return ""
        return f"other programs used {self.others:.1f} cores meanwhile"


def busy() -> float:
    """CPU seconds all cores have worked; 0 where the kernel does not tell."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, soft = (int(word) for word in words[1:8])
    return (user + nice + system + irq + soft) / TICKS_PER_S


def own(pid: int) -> float:
    """CPU seconds of one process, and of its children that have ended (decoders); 0 of one gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(word) for word in words[11:15]) / TICKS_PER_S
