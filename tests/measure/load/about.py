"""What figures were measured on: hardware, model, settings, revision. No figure without them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from app.config import ROOT

SECRETS = ("API_TOKEN", "API_KEYS", "STATS_PASSWORD")


def hardware() -> dict[str, Any]:
    """This machine."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1
        ),
        "gpus": gpus(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Its name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def gpus() -> list[str]:
    """The GPUs' names, as the driver lists them; none without a driver."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return told.stdout.split("\n")[:-1] if told.returncode == 0 else []


def revision() -> str:
    """The project's commit; `+` when files differ from it."""
    commit = git("rev-parse", "--short", "HEAD")
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def git(*arguments: str) -> str:
    """Return git's output; empty without git."""
    try:
        told = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip()


def service(url: str) -> dict[str, Any]:
    """Return what a service says it is: model, device, compute type."""
    try:
        with urllib.request.urlopen(url + "/health", timeout=10) as answer:
            told = json.load(answer)
    except (OSError, ValueError):
        return {}
    return {key: told.get(key) for key in ("model", "device", "compute_type", "gpu_available")}


def about(settings: dict[str, str]) -> dict[str, Any]:
    """All of it, for the head of a report.

    Args:
        settings: those that were set; the others have their defaults.
    """
    shown = {name: value for name, value in sorted(settings.items()) if name not in SECRETS}
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "revision": revision(),
        "hardware": hardware(),
        "settings": shown,
    }
