"""Create, list, rotate and revoke API keys.

    python -m app.keys create NAME [--requests-per-minute N] [--concurrent-requests N]
    python -m app.keys list
    python -m app.keys rotate NAME [--keep-old]
    python -m app.keys revoke NAME [--old]

`create` and `rotate` print the new key once. `rotate` revokes the old key immediately; with
`--keep-old` it stays valid until `revoke NAME --old`. Changes take effect without a restart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError
from app.keys.keyring import LIMITS, MOST, Key, changing, check_name, digest, new_key, read


class KeyCommandError(Exception):
    """A command failed; the message says why."""


def create(path: Path, arguments: argparse.Namespace) -> str:
    """Create a name and its first key."""
    check_name(arguments.name)
    limits = {name: getattr(arguments, name) for name in LIMITS}
    if any(limit is not None and not 1 <= limit <= MOST for limit in limits.values()):
        raise KeyCommandError(f"A limit is a whole number from 1 to {MOST}.")
    key = new_key()
    with changing(path) as keys:
        if arguments.name in keys:
            raise KeyCommandError(f"{arguments.name} is there already; see rotate and revoke.")
        keys[arguments.name] = Key(arguments.name, (digest(key),), **limits, created=today())
    return key


def rotate(path: Path, arguments: argparse.Namespace) -> str:
    """Create a new key for a name."""
    key = new_key()
    with changing(path) as keys:
        old = known(keys, arguments.name)
        kept = old.hashes[:1] if arguments.keep_old else ()
        keys[old.name] = replace(old, hashes=(digest(key), *kept), created=today())
    return key


def revoke(path: Path, arguments: argparse.Namespace) -> str:
    """Revoke all keys of a name, or all but its newest."""
    with changing(path) as keys:
        old = known(keys, arguments.name)
        if arguments.old:
            keys[old.name] = replace(old, hashes=old.hashes[:1])
            return f"{old.name} has its newest key alone."
        del keys[old.name]
    return f"{old.name} has no key any more."


def listed(path: Path, arguments: argparse.Namespace) -> str:
    """List the names, their limits and dates."""
    lines: list[tuple[str, ...]] = [("name", "keys", *LIMITS, "created")]
    for key in sorted(read(path), key=lambda key: key.name):
        limits = (getattr(key, name) for name in LIMITS)
        lines.append(
            (
                key.name,
                str(len(key.hashes)),
                *("-" if limit is None else str(limit) for limit in limits),
                str(key.created or "-"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def known(keys: Mapping[str, Key], name: str) -> Key:
    """Return the key of a name; raise `KeyCommandError` when there is none."""
    if name not in keys:
        raise KeyCommandError("There is no key of this name; see list.")
    return keys[name]


def today() -> date:
    """Return the current date in UTC, as in the log."""
    return datetime.now(UTC).date()


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    root = argparse.ArgumentParser(prog="python -m app.keys")
    root.add_argument("--file", type=Path, help="instead of API_KEYS_FILE")
    commands = root.add_subparsers(required=True)

    def command(name: str, do: Callable[[Path, argparse.Namespace], str]) -> Any:
        subparser = commands.add_parser(name, help=(do.__doc__ or "").splitlines()[0])
        subparser.set_defaults(do=do, says_key=do in (create, rotate))
        if do is not listed:
            subparser.add_argument("name")
        return subparser

    create_parser = command("create", create)
    for name in LIMITS:
        create_parser.add_argument("--" + name.replace("_", "-"), type=int, metavar="N")
    command("list", listed)
    command("rotate", rotate).add_argument("--keep-old", action="store_true")
    command("revoke", revoke).add_argument("--old", action="store_true")
    return root


def main(words: list[str]) -> int:
    """Run the command; only a new key or the result goes to standard output."""
    arguments = parser().parse_args(words)
    try:
        path = arguments.file or Config.from_env().keys_path
        if path is None:
            raise KeyCommandError(
                "API_KEYS_FILE names no file: put API_KEYS_FILE=keys.json into .env, and restart "
                "the service once."
            )
        output = arguments.do(path, arguments)
    except (ConfigError, KeyCommandError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"API_KEYS_FILE: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    if arguments.says_key:
        print(f"The key of {arguments.name}, shown this once:", file=sys.stderr)
    print(output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
