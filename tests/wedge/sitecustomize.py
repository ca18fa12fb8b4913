"""Makes a worker's next device call hang, when a file says so: WEDGE_DIR/WORKER_ID.

Python imports this module by its name at the start of every process whose PYTHONPATH has this
folder; a worker is one that was forked and has the engine's device. Only tests put it there.
"""

import os
import sys
import threading
import time
from pathlib import Path

POLL_S = 0.1


def hang_when_told() -> None:
    """Wait for the device's class, and have its calls look for the file first."""
    told = Path(os.environ["WEDGE_DIR"]) / os.environ.get("WORKER_ID", "none")
    while getattr(sys.modules.get("app.engine.device"), "Device", None) is None:
        time.sleep(POLL_S)
    device = sys.modules["app.engine.device"].Device
    call = device._call

    def call_or_hang(self, batch):
        if told.exists():
            told.unlink()
            threading.Event().wait()
        return call(self, batch)

    device._call = call_or_hang


if "WEDGE_DIR" in os.environ:
    os.register_at_fork(
        after_in_child=lambda: threading.Thread(target=hang_when_told, daemon=True).start()
    )
