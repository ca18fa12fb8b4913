"""Makes a worker's device misbehave, when a file says so: WEDGE_DIR/WORKER_ID.

The file holds one of these, and a worker takes it away when it obeys:

    (nothing)   the next call never returns
    oom N       the next N calls have no room in the device's memory
    lost N      the next N calls fail as those on a device that has gone away
    … ever      every call, of this process and of those that follow, while the file is there
    … (no N)    every call of this process

Python imports this module by its name at the start of every process whose PYTHONPATH has this
folder; a worker is one that was forked and has the engine's device. Only tests put it there.
"""

import math
import os
import sys
import threading
import time
from pathlib import Path

POLL_S = 0.02  # a worker's model takes longer to load
MESSAGES = {
    "oom": "CUDA failed with error out of memory",
    "lost": "CUDA failed with error unspecified launch failure",
}


class Harm:
    """What the file says, and how many calls it is still to be done to."""

    def __init__(self, told: Path) -> None:
        self._told = told
        self._what = ""
        self._left = 0.0
        self._lock = threading.Lock()

    def strike(self) -> None:
        """Before each call."""
        with self._lock:
            what = self._next()
        if what == "hang":
            threading.Event().wait()
        if what:
            raise RuntimeError(MESSAGES[what])

    def _next(self) -> str:
        try:
            words = self._told.read_text().split() or ["hang", "1"]
        except FileNotFoundError:
            pass
        else:
            if words[1:] == ["ever"]:
                return words[0]
            self._told.unlink()
            self._what = words[0]
            self._left = float(words[1]) if words[1:] else math.inf
        if not self._left:
            return ""
        self._left -= 1
        return self._what


class HarmedCalls(dict):
    """The device's calls by their kind, each behind the harm."""

    def __init__(self, calls, harm: Harm) -> None:
        super().__init__(calls)
        self._harm = harm

    def __getitem__(self, kind):
        call = super().__getitem__(kind)

        def harmed(batch):
            self._harm.strike()
            return call(batch)

        return harmed


def obey() -> None:
    """Wait for the device's class, and have its calls look for the file first."""
    harm = Harm(Path(os.environ["WEDGE_DIR"]) / os.environ.get("WORKER_ID", "none"))
    while getattr(sys.modules.get("app.engine.batching.device"), "Device", None) is None:
        time.sleep(POLL_S)
    device = sys.modules["app.engine.batching.device"].Device
    call = device._call

    def harmed_call(self, batch):
        if not isinstance(self._calls, HarmedCalls):
            self._calls = HarmedCalls(self._calls, harm)
        return call(self, batch)

    device._call = harmed_call


if "WEDGE_DIR" in os.environ:
    os.register_at_fork(after_in_child=lambda: threading.Thread(target=obey, daemon=True).start())
