"""The playbooks' Python files, which are in no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from app.config import ROOT

ANSIBLE = ROOT / "deploy" / "ansible"


def load(path: str) -> ModuleType:
    """A file of the playbooks as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ANSIBLE / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
