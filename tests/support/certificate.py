"""A certificate for localhost, made for one test."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certificate(folder: Path) -> Path:
    """Return a PEM file of a key and a self-signed certificate, which is in `folder/cert` too."""
    key, cert, both = folder / "key", folder / "cert", folder / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(key.read_text() + cert.read_text())
    return both
