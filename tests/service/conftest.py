"""The pools that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.key_file import entry, write
from tests.support.stack import KEY, METERED_KEY, Stack
from tests.support.victim import CALL_LIMIT_S, WEDGE, Victim


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service as it is out of the box, with two workers."""
    with Stack.started(tmp_path_factory.mktemp("stack"), WORKERS="2") as running:
        yield running


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One worker with two slots for those who have the key; it logs as much as it can, and keeps
    uploads in a folder of its own."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "uploads").mkdir()
    write(folder / "keys.json", metered=entry(METERED_KEY, requests_per_minute=3))
    with Stack.started(
        folder / "run", WORKERS="1", MAX_CONCURRENT_TRANSCRIPTIONS="2", API_TOKEN=KEY,
        API_KEYS_FILE=str(folder / "keys.json"),
        LOG_LEVEL="debug", LOG_FORMAT="json", TMPDIR=str(folder / "uploads"),
        MAX_UPLOAD_BYTES=str(30_000_000),
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Two workers and a queue, whose device can be made to fail and to hang."""
    folder = tmp_path_factory.mktemp("victim")
    (folder / "wedge").mkdir()
    with Stack.started(
        folder / "run", WORKERS="2", FAIL_FAST_WHEN_BUSY="false", QUEUE_TIMEOUT_S="60",
        DEVICE_CALL_LIMIT_S=str(CALL_LIMIT_S), WEDGE_DIR=str(folder / "wedge"),
        PYTHONPATH=str(WEDGE),
    ) as running:  # fmt: skip
        yield Victim(running)
