"""Write the tables of the roles' variables: in each role's README.md, and in docs/deployment.md.

    python deploy/ansible/variables.py

A variable's meaning comes from the role's `meta/argument_specs.yml`, its default from
`defaults/main.yml`. A test compares the tables with them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ANSIBLE = Path(__file__).resolve().parent
PAGE = ANSIBLE.parents[1] / "docs" / "deployment.md"
BEGIN, END = (
    "<!-- variables: written by deploy/ansible/variables.py -->",
    "<!-- end of variables -->",
)


def roles() -> list[str]:
    """Return the names of the roles."""
    return sorted(path.name for path in (ANSIBLE / "roles").iterdir())


def described(role: str) -> dict[str, dict[str, Any]]:
    """Return the options of a role by the name of their variable."""
    specs = yaml.safe_load((ANSIBLE / "roles" / role / "meta/argument_specs.yml").read_text())
    options: dict[str, dict[str, Any]] = specs["argument_specs"]["main"]["options"]
    return options


def defaults(role: str) -> dict[str, Any]:
    """Return the defaults of a role by the name of their variable."""
    path = ANSIBLE / "roles" / role / "defaults/main.yml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def shown(value: Any) -> str:
    """Return a default as a table's cell."""
    if isinstance(value, str) and "{{" in value:
        return "derived"
    if value in ("", None):
        return "(empty)"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows(role: str) -> list[tuple[str, str, str]]:
    """Return variable, default and meaning of each variable of a role."""
    values = defaults(role)
    return [
        (
            f"`{name}`",
            shown(values[name]) if name in values else "(required)",
            option["description"],
        )
        for name, option in described(role).items()
    ]


def table(names: list[str]) -> str:
    """Return the table of the roles' variables, in Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for role in names for row in rows(role)]
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Return the table of each page that has one."""
    own = {ANSIBLE / "roles" / role / "README.md": table([role]) for role in roles()}
    return {**own, PAGE: table(roles())}


def written(text: str, new: str) -> str:
    """Return a page with its table replaced."""
    marked = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return marked.sub(lambda _: f"{BEGIN}\n{new}\n{END}", text)


if __name__ == "__main__":
    for path, new in pages().items():
        path.write_text(written(path.read_text(), new))
