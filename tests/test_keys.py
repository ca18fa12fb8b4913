"""Keys in a file: read anew when it changes, so that they are rotated without a restart."""

from __future__ import annotations

import os
from pathlib import Path

from app.config import Config
from tests.client import Client
from tests.fakes import held_engine


def write(path: Path, *keys: str) -> None:
    """Put another file in its place, as a tool that installs files does."""
    other = path.with_suffix(".new")
    other.write_text("".join(f"{key}\n" for key in keys))
    os.replace(other, path)


def status(client: Client, key: str) -> int:
    return client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def test_keys_of_a_file_change_without_a_restart(tmp_path):
    path = tmp_path / "keys"
    write(path, "old")
    client = Client.of(Config(api_keys_file=str(path)), held_engine(Config())[0])
    assert (status(client, "old"), status(client, "new")) == (200, 401)

    write(path, "old", "new")
    assert (status(client, "old"), status(client, "new")) == (200, 200)

    write(path, "new")
    assert (status(client, "old"), status(client, "new")) == (401, 200)


def test_a_file_without_keys_lets_nobody_in(tmp_path):
    path = tmp_path / "keys"
    write(path)
    client = Client.of(Config(api_keys_file=str(path)), held_engine(Config())[0])

    assert status(client, "") == 401


def test_a_file_that_goes_leaves_the_keys_as_they_were(tmp_path):
    path = tmp_path / "keys"
    write(path, "old")
    client = Client.of(Config(api_keys_file=str(path)), held_engine(Config())[0])
    assert status(client, "old") == 200

    path.unlink()
    assert (status(client, "old"), status(client, "other")) == (200, 401)


def test_keys_of_the_settings_stay_valid_beside_the_files(tmp_path):
    path = tmp_path / "keys"
    write(path, "second")
    client = Client.of(Config(api_token="first", api_keys_file=str(path)), held_engine(Config())[0])

    assert (status(client, "first"), status(client, "second")) == (200, 200)
