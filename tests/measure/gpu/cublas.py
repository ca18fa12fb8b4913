"""Find cuBLAS 12 for CTranslate2, or lend it cuBLAS 13 under that name, for benchmarks only.

CTranslate2 opens libcublas.so.12 by name at run time. The functions that it calls have the same
names in cuBLAS 13. Nobody promises that they do the same: the part `words` compares with the CPU.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.config import ROOT

LIBRARIES = ("libcublasLt.so", "libcublas.so")
FOLDER = ROOT / ".run" / "cublas-13-as-12"


def environment(
    packages: Sequence[str] | None = None, roots: Sequence[str] = ("/usr/local", "/opt")
) -> tuple[str, dict[str, str]]:
    """Return which cuBLAS there is, and the variables with which CTranslate2 finds it.

    Args:
        packages: folders of Python packages; None: those that this interpreter imports from.
        roots: further folders that may hold CUDA 13, besides those in the loader's cache.
    """
    if packages is None:
        packages = [place for place in sys.path if place.endswith("-packages")]
    if packaged := next(places("12", *packages), None):
        return f"12, {packaged}", path_with(packaged)
    if loads("libcublas.so.12"):
        return "12, the system's", {}
    lent = next(places("13", *packages, *sorted(cached("13")), *roots), None)
    if lent is None:
        return "none", {}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        link = FOLDER / f"{library}.12"
        link.unlink(missing_ok=True)
        link.symlink_to(lent / f"{library}.13")
    return f"13 under the name of 12, {lent}", path_with(FOLDER, lent)


def places(version: str, *roots: str) -> Iterator[Path]:
    """Yield folders below these that hold both libraries."""
    for root in roots:
        for found in sorted(Path(root).glob(f"**/libcublas.so.{version}")):
            if (found.parent / f"libcublasLt.so.{version}").is_file():
                yield found.parent


def cached(version: str) -> set[str]:
    """Return the folders in which the loader's cache has cuBLAS."""
    try:
        told = subprocess.run(
            ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return set()
    paths = [line.split(" => ")[1] for line in told.splitlines() if " => " in line]
    return {str(Path(path).parent) for path in paths if path.endswith(f"libcublas.so.{version}")}


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def path_with(*folders: Path) -> dict[str, str]:
    """Return the loader's path with these folders first."""
    old = os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": ":".join([*map(str, folders), *([old] if old else [])])}
