"""SHA-256 sums of a model's files: who names them, and whether the files are those."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

WEIGHTS = "model.bin"
SUMS_FILE = "SHA256SUMS"  # as sha256sum writes it
SUM = re.compile(r"[0-9a-f]{64}")
LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]([^/]+)")


class ChecksumError(Exception):
    """A file is not the one that was meant; the message says which, and who named its sum."""


def verify(folder: Path, named: Sequence[str]) -> None:
    """Hold a model's files against the sums in the settings and in the folder itself.

    Where neither names any, nothing is read.

    Args:
        folder: a model's.
        named: the setting's values, `FILE=SUM` or a sum alone for the weights.

    Raises:
        ChecksumError: a file differs or is missing, or the folder's list cannot be read.
    """
    check(folder, sums_of(named), "MODEL_SHA256")
    listed = folder / SUMS_FILE
    if listed.is_file():
        check(folder, sums_in(listed), str(listed))


def verify_fetched(folder: Path) -> None:
    """Hold files that have just been fetched against what their hub said they are.

    Its client names a file by the sum that the hub announced (large files: SHA-256) and looks at
    the length alone.

    Raises:
        ChecksumError: a file differs.
    """
    blobs = {path.name: path.resolve().name for path in folder.iterdir() if path.is_symlink()}
    sums = {name: blob for name, blob in blobs.items() if SUM.fullmatch(blob)}
    check(folder, sums, "its hub")


def sums_of(named: Sequence[str]) -> dict[str, str]:
    """The setting's sums by file; `Config` has seen to their form."""
    parts = [one.rpartition("=") for one in named]
    return {name or WEIGHTS: digest.lower() for name, _, digest in parts}


def sums_in(path: Path) -> dict[str, str]:
    """A list's sums by file.

    Raises:
        ChecksumError: a line has another form.
    """
    found = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        matched = LINE.fullmatch(line)
        if matched is None:
            raise ChecksumError(
                f"{path}: line {number} is not a SHA-256 sum, two spaces and the name of a file in "
                f"the same folder. Write it anew with `sha256sum *`, or remove it."
            )
        found[matched[2]] = matched[1].lower()
    return found


def check(folder: Path, sums: Mapping[str, str], source: str) -> None:
    """Raise `ChecksumError` unless the files have these sums."""
    for name, wanted in sums.items():
        path = folder / name
        if not path.is_file():
            raise ChecksumError(f"{source} names a SHA-256 for {path}, and there is no such file.")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise ChecksumError(
                f"{path} is not the file that {source} means: its SHA-256 is {found} and not "
                f"{wanted}. Fetch or copy the model again, or correct the sum."
            )
