"""The tests' HTTP client: every request on a connection of its own, with a generous time limit."""

from __future__ import annotations

import httpx

# One for all, since each new client of httpx reads the system's certificates: 20 ms of CPU.
HTTP = httpx.Client(
    timeout=60, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
)
