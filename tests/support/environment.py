"""The environment that a service under test is started in."""

from __future__ import annotations

import os

from app.config import settings


def bare_environment() -> dict[str, str]:
    """This process's environment without the service's own settings."""
    names = {each.name.upper() for each in settings()}
    return {name: value for name, value in os.environ.items() if name not in names}
