"""Read and write the key file, and find the owner of a key.

The file (`API_KEYS_FILE`) is a JSON object by name. It holds hashes, never a key:

    {
      "meetings": {
        "sha256": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        "requests_per_minute": 600,
        "concurrent_requests": 8,
        "created": "2026-11-23"
      }
    }

A worker looks up the owner of a request's key. The balancer refuses unknown keys before they take a
slot, and enforces the limits across all workers, from a map of the keys' hashes (`balancer_map`).
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
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError
from app.keys import passes

logger = logging.getLogger(__name__)

PREFIX = "sk-"
RANDOM_BYTES = 32
NAME = re.compile(r"(?!sk-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
OF_THE_SETTINGS = ("API_TOKEN", "API_KEYS")
HASH = re.compile(r"[0-9a-f]{64}")
LIMITS = ("requests_per_minute", "concurrent_requests")
MOST = 1_000_000  # the maximum of any limit
MEMBERS = ("sha256", *LIMITS, "created")
FORMER_MEMBERS = ("scopes", "audio_minutes_per_hour")  # from older files; ignored
# Readable by the owner and by a group of the owner's choice: the worker's, where root owns it.
MOST_MODE = 0o640


class KeyFileError(ConfigError):
    """The key file is unusable; the message names API_KEYS_FILE and never contains a value."""


@dataclass(frozen=True, slots=True)
class Key:
    """A client's name, keys and limits.

    Attributes:
        name: the name in metrics and the log.
        hashes: the SHA-256 of each of its keys, the newest first; never empty.
        requests_per_minute: transcriptions started per minute; None: no limit.
        concurrent_requests: concurrent transcriptions, including queued ones; None: no limit.
        created: the date of its newest key.
    """

    name: str
    hashes: tuple[bytes, ...]
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    created: date | None = None


class Keyring:
    """The keys that are currently valid: those of the settings and those of the key file.

    Args:
        config: the settings' keys, which have no limits, and the path of the key file.
        on_keys: called with the keys now, and again whenever the file changes.

    Raises:
        KeyFileError: the file is unusable.
    """

    def __init__(
        self, config: Config, on_keys: Callable[[tuple[Key, ...]], None] = lambda keys: None
    ) -> None:
        self.asks = config.asks_for_key
        self._config = config
        settings = (
            (OF_THE_SETTINGS[0], (config.api_token,)),
            (OF_THE_SETTINGS[1], config.api_keys),
        )
        self._settings_keys = tuple(
            Key(name, tuple(digest(key) for key in keys)) for name, keys in settings if any(keys)
        )
        self._file = KeyFile(config.keys_path, on_keys) if config.keys_path else None
        on_keys(self._settings_keys)

    def keys(self) -> tuple[Key, ...]:
        """Return all keys that are currently valid."""
        return (*self._settings_keys, *(self._file.keys() if self._file else ()))

    def keys_and_passes(self) -> tuple[Key, ...]:
        """Return all keys, each with the pass of its name (`app/keys/passes.py`) as a further key.

        Raises:
            OSError: RUN_DIR cannot be written.
        """
        return with_passes(self.keys(), passes.shared_secret(self._config))

    def find(self, sent: str) -> Key | None:
        """Return the entry that a key or a pass belongs to; None: it is unknown.

        Every hash is compared, each in constant time and all of equal length, so that the timing
        reveals nothing about a key, not even that it was nearly right or once valid.
        """
        sent_hash, owner = digest(sent), None
        is_pass = sent.startswith(passes.PREFIX)
        for key in self.keys_and_passes() if is_pass else self.keys():
            for key_hash in key.hashes:
                if hmac.compare_digest(sent_hash, key_hash):
                    owner = key
        return owner if sent else None


class KeyFile:
    """The key file, reread whenever it changes.

    Any thread may call `keys`: the pair of stamp and keys is replaced atomically.

    Args:
        path: the file.
        on_keys: called with the keys after each read.

    Raises:
        KeyFileError: only at the start; later an unusable file is logged once, and the previous
            keys stay valid.
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
        """Return the file's keys."""
        known, keys = self._read
        try:
            now = stamp(self._path)
            if now != known:
                # Set first, so that an unusable file is read only once until it changes.
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
            logger.error("%s The previous keys stay valid.", error)
        return keys


def stamp(path: Path) -> object:
    """Return a value that differs when the file has changed."""
    status = path.stat()
    return status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino


def digest(key: str) -> bytes:
    """Return a key's hash.

    Plain SHA-256: generated keys are 32 random bytes, which cannot be guessed from a list, so a
    salt or a slow hash would protect nothing, and a worker hashes the key of each request.
    """
    return sha256(key.encode()).digest()


def new_key() -> str:
    """Generate a key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


# --- the file ------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Key, ...]:
    """Read the keys of a file.

    Raises:
        OSError: the file cannot be read.
        KeyFileError: the file is malformed.
    """
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        raise KeyFileError(f"API_KEYS_FILE: {path}: {error}") from None


def parsed(content: bytes) -> tuple[Key, ...]:
    """Parse the content of a key file.

    Strict: a limit with a misspelled name must not become no limit.

    Raises:
        ValueError: the content is malformed; the message contains no value, which may be a key.
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
    hashes = [key_hash for key in keys for key_hash in key.hashes]
    if len(set(hashes)) < len(hashes):
        raise ValueError("a key occurs twice.")
    return keys


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; raise ValueError on a duplicate, which JSON would overwrite."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name occurs twice.")
    return members


def key_of(name: str, entry: Any) -> Key:
    """Parse the entry of a name; raise ValueError when it is malformed."""
    check_name(name)
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is no object.")
    if set(entry) - {*MEMBERS, *FORMER_MEMBERS}:
        raise ValueError(f"{name} has an unknown member; there are {', '.join(MEMBERS)}.")
    hashes = strings(entry.get("sha256"))
    if not hashes or not all(HASH.fullmatch(key_hash) for key_hash in hashes):
        raise ValueError(f"sha256 of {name} is no list of hashes (64 digits, 0-9 and a-f).")
    if "transcribe" not in strings(entry.get("scopes", ["transcribe"])):
        raise ValueError(f"scopes of {name} lack transcribe; scopes are no more: remove the name.")
    limits = {limit: entry[limit] for limit in LIMITS if limit in entry}
    for limit, value in limits.items():
        if type(value) is not int or not 1 <= value <= MOST:
            raise ValueError(f"{limit} of {name} is no whole number from 1 to {MOST}.")
    text = entry.get("created")
    try:
        created = date.fromisoformat(text) if text is not None else None
    except (TypeError, ValueError):
        raise ValueError(f"created of {name} is no date, such as 2026-11-23.") from None
    return Key(name, tuple(map(bytes.fromhex, hashes)), **limits, created=created)


def check_name(name: str) -> None:
    """Raise ValueError unless the name is valid in metrics and the log, and is not a key."""
    if not NAME.fullmatch(name) or name in OF_THE_SETTINGS:
        raise ValueError(
            "a name has 1 to 64 of A-Z, a-z, 0-9, dot, hyphen and underscore, begins with a letter "
            f"or a digit and not with {PREFIX}, and is not {' or '.join(OF_THE_SETTINGS)}."
        )


def strings(value: Any) -> tuple[str, ...]:
    """Return a list of distinct strings as a tuple; empty for anything else."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return ()
    return tuple(value) if len(set(value)) == len(value) else ()


def written(keys: Mapping[str, Key]) -> str:
    """Serialize the keys: sorted, one member per line, so that versions can be diffed."""
    return json.dumps({name: members(keys[name]) for name in sorted(keys)}, indent=2) + "\n"


def members(key: Key) -> dict[str, Any]:
    """Return the members of a name's entry that have a value."""
    limits = {name: getattr(key, name) for name in LIMITS}
    return {
        "sha256": [key_hash.hex() for key_hash in key.hashes],
        **{name: limit for name, limit in limits.items() if limit is not None},
        **({"created": key.created.isoformat()} if key.created else {}),
    }


def with_passes(keys: Iterable[Key], secret: bytes) -> tuple[Key, ...]:
    """Return the keys, each with the pass of its name as a further key.

    Args:
        keys: the keys.
        secret: the one of `passes.shared_secret`.
    """
    return tuple(
        replace(key, hashes=(*key.hashes, digest(passes.pass_of(secret, key.name)))) for key in keys
    )


def balancer_map(keys: Iterable[Key]) -> str:
    """Return the balancer's map, lines of `HASH NAME REQUESTS_PER_MINUTE CONCURRENT_REQUESTS`.

    Hashes are in upper case, as HAProxy writes them; 0 means no limit.
    """
    return "".join(
        f"{key_hash.hex().upper()} {key.name} "
        f"{key.requests_per_minute or 0} {key.concurrent_requests or 0}\n"
        for key in keys
        for key_hash in key.hashes
    )


def replace_file(path: Path, text: str) -> None:
    """Replace a file's content atomically.

    The new file keeps the owner and group of the old one, and its mode is not wider.
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
    """Yield the file's keys by name, and write them back when the block ends.

    The folder is locked meanwhile, so that two concurrent commands do not lose a change.
    """
    path = path.resolve()  # replace the target, not a symbolic link to it
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = {key.name: key for key in read(path)} if path.exists() else {}
        yield keys
        replace_file(path, written(keys))
        os.fsync(folder)
    finally:
        os.close(folder)
