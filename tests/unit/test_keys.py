"""Keys: their file, what they may, and that they are nowhere but with their clients."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.recorder import Recorder
from app.config import ROOT, Config
from app.errors import ClientDisconnected
from app.keys import __main__ as keys
from app.keys import keyring
from app.keys.keyring import Key, KeyFileError, Keyring, digest, parsed
from tests.support.client import TRANSCRIPTIONS, Client, assert_error
from tests.support.fakes import held_engine
from tests.support.key_file import entry, write
from tests.support.recordings import recording, wav

WINDOW = wav(recording("goforward_16k.wav").waveform())


def status(client: Client, key: str) -> int:
    return client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "keys.json"


def client_of(path: Path, **settings: object) -> Client:
    """A client of a worker that reads the file."""
    config = Config(api_keys_file=str(path), **settings)  # type: ignore[arg-type]
    engine, model = held_engine(config)
    model.go.set()
    return Client.of(config, engine)


class Commands:
    """`python -m app.keys` in this process, on one file."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        """Return a command's standard output, or its standard error if it fails."""
        assert keys.main(["--file", str(self.path), *words]) == code
        said = self._capsys.readouterr()
        return (said.err if code else said.out).strip()


@pytest.fixture
def command(path, capsys) -> Commands:
    return Commands(path, capsys)


NAMES = ["a", *keyring.MEMBERS, *keyring.FORMER_MEMBERS]


class TestFile:
    def test_keys_change_without_a_restart(self, path):
        write(path, old=entry("one"))
        client = client_of(path)
        assert (status(client, "one"), status(client, "two")) == (200, 401)

        write(path, old=entry("one"), new=entry("two"))
        assert (status(client, "one"), status(client, "two")) == (200, 200)

        write(path, new=entry("two"))
        assert (status(client, "one"), status(client, "two")) == (401, 200)

    def test_file_without_keys_lets_nobody_in(self, path):
        write(path, empty=entry("") | {"sha256": [digest("").hex()]})
        client = client_of(path)
        assert status(client, "") == 401

        write(path)
        assert (status(client, ""), status(client, "one")) == (401, 401)

    @pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("{")])
    def test_file_that_goes_or_is_malformed_later_leaves_the_keys(self, path, caplog, harm):
        write(path, old=entry("one"))
        client = client_of(path)

        harm(path)
        found = [status(client, key) for key in ("one", "other", "one")]

        assert found == [200, 401, 200]
        said = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
        assert len(said) == 1
        assert "API_KEYS_FILE" in said[0]
        write(path, new=entry("two"))
        assert (status(client, "one"), status(client, "two")) == (401, 200)

    def test_keys_of_the_settings_stay_valid_beside_the_files(self, path):
        write(path, second=entry("two"))
        client = client_of(path, api_token="one", api_keys=("three",))

        assert [status(client, key) for key in ("one", "two", "three", "four")] == [
            200, 200, 200, 401,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"a-plain-key\n", "line 1 is not JSON"),
            (b"", "line 1 is not JSON"),
            (b"\xff", "not text in UTF-8"),
            (b"[]", "no object of keys by name"),
            (b'{"a": {}, "a": {}}', "a name occurs twice"),
            (b"[" * 100_000, "too deeply"),
            (json.dumps({"sk-x": entry("a")}).encode(), "a name has 1 to 64 of"),
            (json.dumps({"API_TOKEN": entry("a")}).encode(), "a name has 1 to 64 of"),
            (json.dumps({"a b": entry("a")}).encode(), "a name has 1 to 64 of"),
            (json.dumps({"a": entry("x"), "b": entry("x")}).encode(), "a key occurs twice"),
            (json.dumps({"a": entry("x", request_per_minute=5)}).encode(), "an unknown member"),
            (
                json.dumps({"a": entry("x", requests_per_minute=0)}).encode(),
                "no whole number",
            ),
            (
                json.dumps({"a": entry("x", concurrent_requests=True)}).encode(),
                "no whole number",
            ),
            (
                json.dumps({"a": entry("x", scopes=["admin"])}).encode(),
                "scopes of a lack transcribe",
            ),
            (json.dumps({"a": entry("x", sha256=["sk-plain"])}).encode(), "sha256 of a is no list"),
            (json.dumps({"a": entry("x", created="now")}).encode(), "created of a is no date"),
        ],
    )
    def test_malformed_file_stops_the_start_and_is_not_quoted(self, path, content, sentence):
        path.write_bytes(content)

        with pytest.raises(KeyFileError) as refused:
            Keyring(Config(api_keys_file=str(path)))

        assert str(refused.value).startswith(f"API_KEYS_FILE: {path}: ")
        assert sentence in str(refused.value)
        assert "plain-key" not in str(refused.value)
        assert "sk-plain" not in str(refused.value)

    @settings(deadline=None)
    @given(st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda one: st.lists(one, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), one, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps({"a": value}).encode()))  # fmt: skip
    def test_whatever_stands_in_the_file_is_read_or_refused(self, content):
        with contextlib.suppress(ValueError):
            found = parsed(content)
            assert sorted(
                parsed(keyring.written({key.name: key for key in found}).encode()),
                key=lambda key: key.name,
            ) == sorted(found, key=lambda key: key.name)

    def test_missing_file_names_the_remedy(self, path):
        with pytest.raises(KeyFileError, match=r"API_KEYS_FILE: .*make key NAME="):
            Keyring(Config(api_keys_file=str(path)))


class TestCommand:
    def test_key_is_made_shown_once_and_valid(self, command, path):
        key = command("create", "meetings", "--requests-per-minute", "600")

        assert key.startswith("sk-")
        assert len(key) == 3 + 43, "32 bytes"
        assert key not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text())["meetings"]["requests_per_minute"] == 600
        assert status(client_of(path), key) == 200
        assert key not in command("list")
        assert "meetings" in command("list")

    def test_rotation_with_and_without_the_old_one(self, command, path):
        first = command("create", "bots")
        client = client_of(path)
        second = command("rotate", "bots", "--keep-old")
        assert [status(client, key) for key in (first, second)] == [200, 200]

        command("revoke", "bots", "--old")
        assert [status(client, key) for key in (first, second)] == [401, 200]

        third = command("rotate", "bots")
        assert [status(client, key) for key in (second, third)] == [401, 200]

        command("revoke", "bots")
        assert status(client, third) == 401

    def test_what_cannot_be_done_is_a_sentence(self, command, path):
        command("create", "bots")
        before = path.read_bytes()

        for words, sentence in (
            (("create", "bots"), "is there already"),
            (("create", "sk-oops"), "a name has 1 to 64"),
            (("create", "x", "--concurrent-requests", "0"), "A limit is"),
            (("rotate", "nobody"), "no key of this name"),
            (("revoke", "nobody"), "no key of this name"),
        ):
            assert sentence in command(*words, code=1)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path], "nothing else is left"

    def test_file_keeps_its_owner_and_the_group_that_may_read_it(self, command, path):
        command("create", "bots")
        path.chmod(0o644)
        if os.geteuid() == 0:
            os.chown(path, 65_534, 65_533)

        command("rotate", "bots")

        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o640
        if os.geteuid() == 0:
            assert (found.st_uid, found.st_gid) == (65_534, 65_533)

    def test_two_commands_at_once_are_both_done(self, path):
        def made(name: str) -> int:
            words = [sys.executable, "-m", "app.keys", "--file", str(path), "create", name]
            return subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode

        with ThreadPoolExecutor() as threads:
            assert list(threads.map(made, ("a", "b", "c"))) == [0] * 3

        assert set(json.loads(path.read_text())) == {"a", "b", "c"}

    def test_without_a_file_the_setting_is_named(self, capsys, monkeypatch):
        monkeypatch.setattr(Config, "keys_path", None)

        assert keys.main(["list"]) == 1
        assert "API_KEYS_FILE" in capsys.readouterr().err


class TestAnswers:
    def test_every_key_is_compared_whole_and_in_constant_time(self, path, monkeypatch):
        """Digests of one length, all of them, wherever the right one stands."""
        write(path, a=entry("one", "two"), b=entry("three"))
        ring = Keyring(Config(api_keys_file=str(path), api_token="four"))
        compared: list[tuple[int, int]] = []

        def watched(one: bytes, other: bytes) -> bool:
            compared.append((len(one), len(other)))
            return hmac.compare_digest(one, other)

        class Watched:
            compare_digest = staticmethod(watched)

        monkeypatch.setattr(keyring, "hmac", Watched)
        for sent in ("one", "four", "wrong", "", "x" * 10_000):
            compared.clear()
            found = ring.find(sent)

            assert compared == [(32, 32)] * 4
            assert (found is not None) == (sent in ("one", "four"))

    def test_wrong_revoked_and_missing_keys_have_one_answer(self, path):
        write(path, a=entry("one"), b=entry("two"))
        client = client_of(path)
        assert status(client, "two") == 200
        write(path, a=entry("one"))

        answers = [
            client.get("/v1/models", headers=headers)
            for headers in (
                {"X-API-Key": "two"}, {"X-API-Key": "wrong"}, {"X-API-Key": "a"}, {},
                {"Authorization": "Bearer " + digest("one").hex()},
            )
        ]  # fmt: skip

        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1
        varying = {"x-request-id", "server-timing", "openai-processing-ms"}
        heads = [{k: v for k, v in one.headers.items() if k not in varying} for one in answers]
        assert all(head == heads[0] for head in heads)

    def test_file_of_an_earlier_release_is_read(self, path):
        """With scopes, and with minutes of audio, which have no meaning any more."""
        write(path, old=entry("one", scopes=["transcribe", "admin"], audio_minutes_per_hour=5))

        assert status(client_of(path), "one") == 200

    def test_balancers_map_has_every_hash_and_its_limits(self, path):
        write(path, bots=entry("new", "old", requests_per_minute=60), free=entry("free"))
        ring = Keyring(Config(api_keys_file=str(path), api_token="token"))

        lines = keyring.balancer_map(ring.keys()).splitlines()

        assert sorted(lines) == sorted(
            f"{digest(key).hex().upper()} {rest}"
            for key, rest in (
                ("token", "API_TOKEN 0 0"), ("new", "bots 60 0"), ("old", "bots 60 0"),
                ("free", "free 0 0"),
            )
        )  # fmt: skip

    @pytest.mark.parametrize(
        "name",
        ["api_key", "key", "token", "access_token", "apikey", "API-Key", "x-api-key", "auth_token",
         "api%5Fkey", "authorization", "api_token", "client_secret"],
    )  # fmt: skip
    def test_key_in_the_url_is_refused_whether_it_is_right_or_wrong(self, path, caplog, name):
        caplog.set_level("DEBUG")
        write(path, a=entry("sk-right"))
        client = client_of(path)

        answers = [
            client.get(url, query_string=f"x=1&{name}={key}", headers={"X-API-Key": "sk-right"})
            for url in ("/v1/models", "/nothing", "/health", TRANSCRIPTIONS)
            for key in ("sk-right", "sk-wrong")
        ]

        for answer in answers:
            assert_error(answer, 400)
            assert answer.json["error"]["code"] == "key_in_url"
            assert "sk-" not in answer.text
        assert "sk-" not in caplog.text
        harmless = client.get(
            "/v1/models", query_string="monkey=1&tokens=2", headers={"X-API-Key": "sk-right"}
        )
        assert harmless.status_code == 200

    def test_use_is_counted_by_name(self, path):
        write(path, quiet=entry("one"), busy=entry("two"))
        client = client_of(path)
        assert metric(client, 'key_requests_total{key="quiet",status="2xx"}') == 0

        client.post(WINDOW, headers={"X-API-Key": "two"})
        client.post(b"no audio", headers={"X-API-Key": "two"})
        client.post(WINDOW, headers={"X-API-Key": "three"})

        assert metric(client, 'key_requests_total{key="quiet",status="2xx"}') == 0
        assert metric(client, 'key_requests_total{key="busy",status="2xx"}') == 1
        assert metric(client, 'key_requests_total{key="busy",status="4xx"}') == 1
        assert metric(client, 'key_audio_seconds_total{key="busy"}') == pytest.approx(
            recording("goforward_16k.wav").waveform().size / 16_000
        )

    def test_request_that_its_client_cancelled_is_no_error_of_the_key(self, path):
        write(path, leaver=entry("one"))
        client = client_of(path)
        record = Recorder("POST", TRANSCRIPTIONS)
        record.key = Key("leaver", (b"",))

        record.failed(ClientDisconnected("The client left."))
        record.finish(200)

        outcomes = {"2xx": 0, "4xx": 0, "5xx": 0, "cancelled": 1}
        for outcome, number in outcomes.items():
            name = f'key_requests_total{{key="leaver",status="{outcome}"}}'
            assert metric(client, name) == number


def metric(client: Client, name: str) -> float:
    """A figure of the worker; fails when it is not there."""
    lines = [one.rpartition(" ") for one in client.get("/metrics").text.splitlines()]
    return next(float(value) for key, _, value in lines if key == "transcription_" + name)
