"""What all parts of `make bench-gpu` share: sizes, time limits, tables, and the JSON they write."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from app.config import ROOT
from app.engine.hardware import gpu_count

GPU = gpu_count() > 0
DEVICE = "cuda" if GPU else "cpu"
TYPES = ("float16", "int8_float16") if GPU else ("int8",)
# Without a GPU the same commands run with small sizes: their figures say nothing, and the code is
# shown to work.
SIZE_VARIABLE = "BENCH_GPU_SIZE"
SIZE = os.environ.get(SIZE_VARIABLE) or ("large-v3-turbo" if GPU else "trial")
LEVELS = (1, 2, 4, 8, 16, 32, 64) if GPU else (1, 2)  # concurrent windows
CPU_BATCH = 4

RESULTS = ROOT / ".run" / "bench-gpu"
MODELS = ROOT / ".run" / "test-models"
CUBLAS_VARIABLE = "BENCH_GPU_CUBLAS"
DEADLINE = "BENCH_GPU_DEADLINE"  # by time.monotonic(), which all processes share


@dataclass
class Part:
    """Results of one part: printed as Markdown tables, and written after each line.

    A part that is killed leaves what it had measured, with `finished` false.
    """

    name: str
    lines: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _table: str = ""

    def __post_init__(self) -> None:
        # A shell ignores this signal for its background jobs, and they pass that on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._write(finished=False)

    @property
    def left_s(self) -> float:
        """Seconds until this part should end."""
        return float(os.environ.get(DEADLINE, "inf")) - time.monotonic()

    def add(self, table: str, **cells: Any) -> None:
        """Add a line to a table."""
        if table != self._table:
            print(f"\n{table}\n\n| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|")
            self._table = table
        print("| " + " | ".join(map(shown, cells.values())) + " |", flush=True)
        self.lines.append({"table": table, **cells})
        self._write(finished=False)

    def note(self, text: str) -> None:
        """Add a sentence, such as why something was not measured."""
        print(f"\n{text}", flush=True)
        self._table = ""
        self.notes.append(text)
        self._write(finished=False)

    def finish(self) -> None:
        """Say that nothing is missing."""
        self._write(finished=True)

    def _write(self, finished: bool) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        result = {
            "part": self.name, "device": DEVICE, "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "finished": finished, "notes": self.notes, "lines": self.lines,
        }  # fmt: skip
        path = RESULTS / f"{self.name}.json"
        path.with_suffix(".new").write_text(json.dumps(result, indent=1))
        path.with_suffix(".new").replace(path)


def shown(cell: Any) -> str:
    """Return a cell as a table shows it."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return "-" if cell is None else str(cell)
