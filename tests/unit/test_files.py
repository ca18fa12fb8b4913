"""A model that is fetched: what the operator sees meanwhile."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import ROOT
from tests.support.environment import bare_environment
from tests.support.model_hub import hub_of

BYTES = 40 << 20  # four of the pieces in which huggingface_hub reads
FILES = {"model.bin": bytes(BYTES), "config.json": b"{}", "tokenizer.json": b"{}"}
FETCH = [sys.executable, "-m", "app.engine.files"]


@pytest.fixture
def environment(tmp_path) -> Iterator[dict[str, str]]:
    """Settings of a model that only the hub has."""
    with hub_of(FILES | {"vocabulary.txt": b"a"}) as url:
        yield bare_environment() | {
            "HF_ENDPOINT": url, "MODEL_SIZE": "tiny", "MODEL_DIR": str(tmp_path), "DEVICE": "cpu",
            "NO_PROXY": "127.0.0.1",
        }  # fmt: skip


def test_terminal_shows_share_rate_and_time_left(environment, tmp_path):
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(
        FETCH, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    shown = read_all(terminal)
    told, _ = process.communicate()

    assert process.returncode == 0, shown
    assert f"Model: fetching tiny into {tmp_path}" in shown
    steps = re.findall(r"(\d+) % of 41\.9MB, [\d.]+[kM]?B/s, (\d\d:\d\d) left", shown)
    shares = [int(share) for share, _ in steps]
    assert len(steps) > 2, shown
    assert shares == sorted(shares)
    assert "Fetching" not in shown
    assert "Downloading" not in shown
    assert Path(told.splitlines()[-3], "model.bin").stat().st_size == BYTES


def test_log_gets_one_line(environment, tmp_path):
    done = subprocess.run(
        FETCH, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == f"Model: fetching tiny into {tmp_path}\n"


def read_all(terminal: int) -> str:
    """Return what a terminal shows until its last writer ends."""
    received = b""
    with open(terminal, "rb", buffering=0) as stream:
        try:
            while part := stream.read(4096):
                received += part
        except OSError:  # Linux's end of a terminal
            pass
    return received.decode()
