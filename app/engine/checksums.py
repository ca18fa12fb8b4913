"""Verify a model's files against SHA-256 sums from the settings, the folder or the hub."""

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
    """Checksum mismatch; the message names the file and the source of the sum."""


def verify(folder: Path, named: Sequence[str]) -> None:
    """Verify a model's files against the sums in the settings and in the folder itself.

    Without sums, no file is read.

    Args:
        folder: the model's folder.
        named: the setting's values, `FILE=SUM` or a sum alone for the weights.

    Raises:
        ChecksumError: a file differs or is missing, or the folder's list is malformed.
    """
    check(folder, sums_of(named), "MODEL_SHA256")
    listed = folder / SUMS_FILE
    if listed.is_file():
        check(folder, sums_in(listed), str(listed))


def verify_fetched(folder: Path) -> None:
    """Verify downloaded files against the sums that the hub announced.

    The hub's client names a file after its announced sum (large files: SHA-256) but checks only
    the length.

    Raises:
        ChecksumError: a file differs.
    """
    blobs = {path.name: path.resolve().name for path in folder.iterdir() if path.is_symlink()}
    sums = {name: blob for name, blob in blobs.items() if SUM.fullmatch(blob)}
    check(folder, sums, "its hub")


def sums_of(named: Sequence[str]) -> dict[str, str]:
    """Return the setting's sums by file name; `Config` has validated their format."""
    parts = [value.rpartition("=") for value in named]
    return {name or WEIGHTS: digest.lower() for name, _, digest in parts}


def sums_in(path: Path) -> dict[str, str]:
    """Return the sums of a `SHA256SUMS` file by file name.

    Raises:
        ChecksumError: a line is malformed.
    """
    sums = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise ChecksumError(
                f"{path}: line {number} is not a SHA-256 sum, two spaces and the name of a file in "
                f"the same folder. Regenerate the list with `sha256sum *`, or remove it."
            )
        sums[match[2]] = match[1].lower()
    return sums


def check(folder: Path, sums: Mapping[str, str], source: str) -> None:
    """Raise `ChecksumError` unless the files have these sums."""
    for name, wanted in sums.items():
        path = folder / name
        if not path.is_file():
            raise ChecksumError(f"{source} names a SHA-256 for {path}, and there is no such file.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != wanted:
            raise ChecksumError(
                f"{path} is not the file that {source} means: its SHA-256 is {digest} and not "
                f"{wanted}. Fetch or copy the model again, or correct the sum."
            )
