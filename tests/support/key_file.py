"""Files of keys, as `make key` writes them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from app.keys.keyring import digest


def entry(*secrets: str, **members: object) -> dict[str, object]:
    """A name's entry in the file."""
    hashes = [digest(secret).hex() for secret in secrets]
    return {"sha256": hashes} | members


def write(path: Path, **names: dict[str, object]) -> None:
    """Put another file in its place, as a tool that installs files does."""
    other = path.with_suffix(".new")
    other.write_text(json.dumps(names))
    os.replace(other, path)
