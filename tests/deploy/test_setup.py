"""The commands of a folder where little is there yet: one sentence each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT


@pytest.fixture
def folder(tmp_path) -> Path:
    """A project that was just cloned, as far as its commands are concerned."""
    (tmp_path / "deploy").mkdir()
    for name in ("Makefile", "deploy/setup.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, also where `make test` runs these tests."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=folder, env=outside, capture_output=True, text=True, check=False,
    )  # fmt: skip


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of standard error but for make's own."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def test_make_alone_lists_the_commands(folder):
    alone = make(folder)

    assert alone.returncode == 0
    assert alone.stdout == make(folder, "help").stdout
    assert "make run " in alone.stdout


@pytest.mark.parametrize("command", ["restart", "scale", "status", "reload", "keys"])
def test_command_without_an_environment_says_what_is_missing(folder, command):
    done = make(folder, command)

    assert done.returncode == 2
    assert sentences(done) == ["Nothing is set up here yet. Start the service with: make run"]


def test_stop_without_an_environment_has_nothing_to_do(folder):
    done = make(folder, "stop")

    assert (done.returncode, done.stderr) == (0, "")


def test_failed_installation_ends_in_one_sentence_with_the_reason(folder):
    (folder / ".venv").mkdir()
    for name in ("bin", "lib"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix, name))
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), folder / ".venv")
    (folder / "requirements.txt").write_text("no requirement at all\n")

    done = make(folder, "run")

    assert done.returncode == 2
    assert done.stdout == "Packages: installing into .venv; log: .run/setup.log\n"
    (sentence,) = sentences(done)
    assert sentence.startswith("Installing requirements.txt failed (ERROR: Invalid requirement")
    assert sentence.endswith("see .run/setup.log.")


def test_reason_is_that_of_the_command_that_failed(folder):
    """An earlier one may have printed an error and succeeded, as pip does."""
    (folder / ".venv/bin").mkdir(parents=True)
    for name, script in {
        "pip": "",
        "python": "case $* in *model*) echo Killed; exit 1 ;; *) echo ERROR: conflict ;; esac",
    }.items():
        (folder / ".venv/bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / ".venv/bin" / name).chmod(0o700)
    for name in ("requirements.txt", "deploy/requirements-model.txt"):
        (folder / name).touch()

    (sentence,) = sentences(make(folder, "run"))

    assert sentence.startswith("Installing deploy/requirements-model.txt failed (Killed);")
