"""`make security` runs files that exist."""

from __future__ import annotations

import importlib.util

import pytest

from app.config import ROOT
from tests.measure.security import HARMS, Harm


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.name)
def test_every_harm_has_a_command_that_exists(harm: Harm):
    paths = [word for word in harm.command if word.endswith(".py")]
    modules = [word for word in harm.command if word.startswith("tests.")]

    assert paths or modules
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
