"""The services that can be measured: this one on free ports, and one that runs already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from app.config import Config, settings
from tests.measure.load import about
from tests.measure.load.counters import Target
from tests.support.stack import Stack

# name -> settings that differ from the defaults
SERVICES = {"service": {}, "adaptive": {"ENCODER_WINDOW": "adaptive"}}
SIDES = tuple(SERVICES)
OWN_PORTS = ("LB_PORT", "STATS_PORT", "WORKER_BASE_PORT", "RUN_DIR", "WORKER_ID")


def chosen() -> dict[str, str]:
    """The service's settings that this command's environment names, without ports and places."""
    names = [each.name.upper() for each in settings()]
    return {
        name: os.environ[name] for name in names if os.environ.get(name) and name not in OWN_PORTS
    }


def config_of(own: dict[str, str]) -> Config:
    """The configuration a pool with these settings has."""
    return Config.from_env(own, env_file=None)


@contextmanager
def started(side: str, folder: Path, **own: str) -> Iterator[tuple[Target, dict[str, str]]]:
    """Start one side; gives where it is, and its settings.

    Args:
        own: settings of this run alone.
    """
    wanted = chosen() | SERVICES[side] | own
    with Stack.started(folder / f"run-{side}-{wanted.get('WORKERS', '')}", **wanted) as stack:
        yield of(stack, side), wanted


def of(stack: Stack, name: str = "service") -> Target:
    """Where a started pool is."""
    config = config_of(stack.settings)
    target = Target(
        name,
        stack.url,
        f"http://127.0.0.1:{stack.settings['STATS_PORT']}",
        tuple(stack.worker_url(number) for number in range(1, config.workers + 1)),
        (stack.process.pid, *stack.processes()),
    )
    gpu = about.service(target.url).get("device") == "cuda"
    lanes = config.workers * (config.gpu_streams if gpu else config.replicas)
    return replace(target, lanes=lanes)


def slots(own: dict[str, str]) -> int:
    """Return how many requests a pool with these settings has inside at once."""
    config = config_of(chosen() | own)
    return config.workers * config.slots
