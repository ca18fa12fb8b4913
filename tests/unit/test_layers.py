"""The packages' order: imports point down, never up."""

from __future__ import annotations

import ast

import pytest

from app.config import ROOT

APP = ROOT / "app"
# From top to bottom; the packages of one floor do not import each other.
FLOORS = (
    ("app.pool", "app.main"),
    ("app.worker",),
    ("app.api",),
    ("app.formats",),
    ("app.engine", "app.live"),
    ("app.audio",),
    ("app.keys", "app.observability"),
    ("app.config",),
    ("app.errors", "app.process"),
)
FILES = sorted(APP.rglob("*.py"))


def floor(module: str) -> tuple[int, str]:
    """Return a module's floor, counted from the top, and its package there."""
    for number, packages in enumerate(FLOORS):
        for package in packages:
            if module == package or module.startswith(package + "."):
                return number, package
    raise AssertionError(f"{module} has no floor")


def imported(tree: ast.AST) -> set[str]:
    """Return the project's modules that a file imports, also inside its functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.startswith("app.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_imports_point_down(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    if module == "app":
        return
    own, package = floor(module)
    for name in imported(ast.parse(path.read_text())):
        other, its_package = floor(name)
        assert other > own or its_package == package, f"{module} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_every_file_says_its_one_job(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
