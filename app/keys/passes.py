"""Derive the passes with which gateways of live transcription act for a key that they do not have.

A session that was opened with a client secret knows only the name of the key behind it. Its windows
carry the name's pass: an HMAC of the name under a secret that workers, gateways and balancers
share. A pass is valid as long as its name has a key, and counts towards the name's limits.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import tempfile
from hashlib import sha256
from pathlib import Path

from app.config import ROOT, Config

PREFIX = "live-"
FILE = "live.secret"
SECRET_BYTES = 32
PURPOSE = b"pass:"


def shared_secret(config: Config) -> bytes:
    """Return the secret: `LIVE_SECRET`, or one of this machine that is made once.

    Raises:
        OSError: RUN_DIR cannot be written.
    """
    if config.live_secret:
        return secret_of(config.live_secret)
    path = ROOT / config.run_dir / FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    make(path)
    return path.read_bytes()


def secret_of(text: str) -> bytes:
    """Return the secret derived from the text of `LIVE_SECRET`."""
    return sha256(text.encode()).digest()


def make(path: Path) -> None:
    """Make a random secret, unless another process is first: a link appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    with contextlib.suppress(FileExistsError):
        os.link(name, path)
    os.unlink(name)


def pass_of(secret: bytes, name: str) -> str:
    """Return the pass of a key's name."""
    return PREFIX + hmac.digest(secret, PURPOSE + name.encode(), sha256).hex()
