"""Write what Supervisor and its programs print to a file of limited size."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

FILE_BYTES = 20_000_000
FORMER_FILES = 4


def log_file(path: Path) -> RotatingFileHandler:
    """Return a handler that appends to a file; four former ones of 20 MB each are kept."""
    return RotatingFileHandler(
        path, maxBytes=FILE_BYTES, backupCount=FORMER_FILES, encoding="utf-8", errors="replace"
    )


def copy_lines(source: IO[bytes], log: RotatingFileHandler) -> None:
    """Copy lines to the log until the source ends."""
    for line in source:
        text = line.decode(errors="replace").rstrip("\n")
        log.handle(logging.makeLogRecord({"msg": text}))
