"""What is said of the roles' variables: complete, and the same everywhere."""

from __future__ import annotations

import re

import pytest

from app.config import ROOT
from tests.support.playbooks import ANSIBLE, load

variables = load("variables.py")


@pytest.mark.parametrize("role", variables.roles())
def test_every_default_is_described_and_every_option_has_a_default(role):
    required = {
        name for name, option in variables.described(role).items() if option.get("required")
    }

    assert set(variables.described(role)) - required == set(variables.defaults(role))


@pytest.mark.parametrize("page", variables.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_the_roles_variables(page):
    text = page.read_text()

    assert text.count(variables.BEGIN) == 1
    assert text == variables.written(text, variables.pages()[page]), "run variables.py"


def test_the_example_inventory_sets_only_variables_of_the_roles():
    known = {name for role in variables.roles() for name in variables.described(role)}
    for path in (ANSIBLE / "inventory/example/group_vars").glob("*.yml"):
        for name in re.findall(r"^(?:# )?([a-z][a-z_]+):", path.read_text(), re.M):
            assert name in known, f"{path.name}: {name}"
