"""The clients' keys: their file, and who a key belongs to.

The file (`API_KEYS_FILE`) is JSON, an object by name. It holds hashes, never a key:

    {
      "meetings": {
        "sha256": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        "requests_per_minute": 600,
        "concurrent_requests": 8,
        "created": "2026-11-23"
      }
    }

A worker finds out whose key a request has. The balancer refuses unknown keys before they take a
slot, and enforces the limits, which hold over all workers: it reads a map of the keys' hashes
(`balancer_map`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError

logger = logging.getLogger(__name__)

PREFIX = "sk-"
RANDOM_BYTES = 32
NAME = re.compile(r"(?!sk-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
OF_THE_SETTINGS = ("API_TOKEN", "API_KEYS")
HASH = re.compile(r"[0-9a-f]{64}")
LIMITS = ("requests_per_minute", "concurrent_requests")
MOST = 1_000_000  # of anything; what is more is no limit
MEMBERS = ("sha256", *LIMITS, "created")
FORMER_MEMBERS = ("scopes", "audio_minutes_per_hour")  # of older files; without a meaning now
# For the owner, and for a group that the owner chose: a worker's, where root keeps the file.
MOST_MODE = 0o640


class KeyFileError(ConfigError):
    """The file cannot be used; the message names API_KEYS_FILE and never what a value is."""


@dataclass(frozen=True, slots=True)
class Key:
    """A client: its name, its keys, and its limits.

    Attributes:
        name: as the metrics and the log have it.
        hashes: the SHA-256 of each of its keys, the newest first; never empty.
        requests_per_minute: transcriptions begun within a minute; None: no limit.
        concurrent_requests: transcriptions at once, including those that wait; None: no limit.
        created: when its newest key was made.
    """

    name: str
    hashes: tuple[bytes, ...]
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    created: date | None = None


class Keyring:
    """The keys that are valid now: those of the settings, and those of the file.

    Args:
        config: its keys, which may do everything without a limit, and the file's name.
        on_keys: told the keys now, and again whenever the file has others.

    Raises:
        KeyFileError: the file cannot be used.
    """

    def __init__(
        self, config: Config, on_keys: Callable[[tuple[Key, ...]], None] = lambda keys: None
    ) -> None:
        self.asks = config.asks_for_key
        given = ((OF_THE_SETTINGS[0], (config.api_token,)), (OF_THE_SETTINGS[1], config.api_keys))
        self._settings_keys = tuple(
            Key(name, tuple(digest(key) for key in keys)) for name, keys in given if any(keys)
        )
        self._file = KeyFile(config.keys_path, on_keys) if config.keys_path else None
        on_keys(self._settings_keys)

    def keys(self) -> tuple[Key, ...]:
        """Every key that is valid now."""
        return (*self._settings_keys, *(self._file.keys() if self._file else ()))

    def find(self, sent: str) -> Key | None:
        """Whose key this is; None: nobody's.

        Hashes of one length are compared, each of them and each in constant time, so that the
        time tells nothing about a key, not even that it was nearly right or was valid once.
        """
        hashed, found = digest(sent), None
        for key in self.keys():
            for one in key.hashes:
                if hmac.compare_digest(hashed, one):
                    found = key
        return found if sent else None


class KeyFile:
    """Keys that change while the worker runs: read anew when the file is another.

    Threads may ask at the same time: the pair of stamp and keys is replaced as one.

    Args:
        path: the file.
        on_keys: told what was read.

    Raises:
        KeyFileError: at the start alone; later a file that cannot be used is logged once, and
            the keys stay as they were.
    """

    def __init__(self, path: Path, on_keys: Callable[[tuple[Key, ...]], None]) -> None:
        self._path = path
        self._on_keys = on_keys
        try:
            self._read: tuple[object, tuple[Key, ...]] = (stamp(path), read(path))
            on_keys(self._read[1])
        except OSError as error:
            raise KeyFileError(
                f"API_KEYS_FILE: {path} cannot be read ({error.strerror}); "
                "`make key NAME=…` makes a key and the file."
            ) from None

    def keys(self) -> tuple[Key, ...]:
        """The file's keys."""
        known, keys = self._read
        try:
            now = stamp(self._path)
            if now != known:
                # Also a file that cannot be used is looked at once, and again when it changes.
                self._read = (now, keys)
                keys = read(self._path)
                self._read = (now, keys)
                self._on_keys(keys)
                logger.info("%s read: %d names", self._path, len(keys))
        except OSError as error:
            if known != "unreadable":
                logger.error("API_KEYS_FILE: %s cannot be read (%s)", self._path, error.strerror)
                self._read = ("unreadable", keys)
        except KeyFileError as error:
            logger.error("%s The keys stay as they were.", error)
        return keys


def stamp(path: Path) -> object:
    """What differs when the file is another."""
    found = path.stat()
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino


def digest(key: str) -> bytes:
    """A key's hash.

    Plain SHA-256: the keys made here are 32 random bytes, which no list of guesses holds, so
    there is nothing that salt or a slow hash would protect, and a worker hashes each request's.
    """
    return sha256(key.encode()).digest()


def new_key() -> str:
    """A key nobody can guess: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


# --- the file ------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        OSError: it cannot be read.
        KeyFileError: it is malformed.
    """
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        raise KeyFileError(f"API_KEYS_FILE: {path}: {error}") from None


def parsed(content: bytes) -> tuple[Key, ...]:
    """The keys that a file's bytes describe.

    Strict: a limit whose name is misspelled must not become no limit.

    Raises:
        ValueError: what is wrong with them, without any value: it may be a key.
    """
    try:
        entries = json.loads(content.decode(), object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        hint = " It holds an object by name; keys themselves, one a line, are not read."
        raise ValueError(f"line {error.lineno} is not JSON.{hint}") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8.") from None
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    if not isinstance(entries, dict):
        raise ValueError("it is no object of keys by name.")
    keys = tuple(key_of(name, entry) for name, entry in entries.items())
    hashes = [one for key in keys for one in key.hashes]
    if len(set(hashes)) < len(hashes):
        raise ValueError("one key stands there twice.")
    return keys


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; of two with one name JSON would silently keep the second."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice.")
    return found


def key_of(name: str, entry: Any) -> Key:
    """One name's keys and what they may; ValueError: what is wrong."""
    check_name(name)
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is no object.")
    if set(entry) - {*MEMBERS, *FORMER_MEMBERS}:
        raise ValueError(f"{name} has an unknown member; there are {', '.join(MEMBERS)}.")
    hashes = strings(entry.get("sha256"))
    if not hashes or not all(HASH.fullmatch(one) for one in hashes):
        raise ValueError(f"sha256 of {name} is no list of hashes (64 digits, 0-9 and a-f).")
    if "transcribe" not in strings(entry.get("scopes", ["transcribe"])):
        raise ValueError(f"scopes of {name} lack transcribe; scopes are no more: remove the name.")
    limits = {each: entry[each] for each in LIMITS if each in entry}
    for each, limit in limits.items():
        if type(limit) is not int or not 1 <= limit <= MOST:
            raise ValueError(f"{each} of {name} is no whole number from 1 to {MOST}.")
    created = entry.get("created")
    try:
        made = date.fromisoformat(created) if created is not None else None
    except (TypeError, ValueError):
        raise ValueError(f"created of {name} is no date, such as 2026-11-23.") from None
    return Key(name, tuple(map(bytes.fromhex, hashes)), **limits, created=made)


def check_name(name: str) -> None:
    """ValueError unless the name may stand in metrics and in the log, and is no key."""
    if not NAME.fullmatch(name) or name in OF_THE_SETTINGS:
        raise ValueError(
            "a name has 1 to 64 of A-Z, a-z, 0-9, dot, hyphen and underscore, begins with a letter "
            f"or a digit and not with {PREFIX}, and is not {' or '.join(OF_THE_SETTINGS)}."
        )


def strings(value: Any) -> tuple[str, ...]:
    """A list of different strings; anything else is none."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return ()
    return tuple(value) if len(set(value)) == len(value) else ()


def written(keys: Mapping[str, Key]) -> str:
    """The file of these keys: sorted, a member a line, so that two versions can be compared."""
    return json.dumps({name: members(keys[name]) for name in sorted(keys)}, indent=2) + "\n"


def members(key: Key) -> dict[str, Any]:
    """One name's members, those that say something."""
    limits = {each: getattr(key, each) for each in LIMITS}
    return {
        "sha256": [one.hex() for one in key.hashes],
        **{each: limit for each, limit in limits.items() if limit is not None},
        **({"created": key.created.isoformat()} if key.created else {}),
    }


def balancer_map(keys: Iterable[Key]) -> str:
    """The balancer's map: a line `HASH NAME REQUESTS_PER_MINUTE CONCURRENT_REQUESTS` for each key.

    Hashes are in capitals, as HAProxy writes them; 0 is no limit.
    """
    return "".join(
        f"{hashed.hex().upper()} {key.name} "
        f"{key.requests_per_minute or 0} {key.concurrent_requests or 0}\n"
        for key in keys
        for hashed in key.hashes
    )


def replace_file(path: Path, text: str) -> None:
    """Put another file in the place of one, whole or not at all.

    It belongs to whom the old one belonged, and others can no more read it than before.
    """
    before = path.stat() if path.exists() else None
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(number, "w") as file:
            if before:
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(number, before.st_uid, before.st_gid)
                os.fchmod(number, stat.S_IMODE(before.st_mode) & MOST_MODE | 0o600)
            file.write(text)
            file.flush()
            os.fsync(number)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def changing(path: Path) -> Iterator[dict[str, Key]]:
    """The file's keys by name, to be changed in the block and written after it.

    The folder is locked meanwhile, so that of two commands at once neither is lost.
    """
    path = path.resolve()  # a link stays one
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = {key.name: key for key in read(path)} if path.exists() else {}
        yield keys
        replace_file(path, written(keys))
        os.fsync(folder)
    finally:
        os.close(folder)
