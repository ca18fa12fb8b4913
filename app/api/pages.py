"""Serve the HTML pages, which are static files in app/pages, and a sample recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import falcon

from app.api.openapi import document
from app.config import Config
from app.engine.model import WARM_UP_RECORDING
from app.errors import NOTHING_HERE, NotFound

FOLDER = Path(__file__).parent.parent / "pages"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".flac": "audio/flac",
}
SAMPLE = "sample.flac"
# Nothing from other hosts; only scripts and styles from files.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Pages:
    """Resource of a page's scripts, styles and images; `Page` serves the pages themselves.

    The files are read when the worker starts, so no name from a client reaches the file system.
    """

    def __init__(self) -> None:
        self._files = {
            path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES
        } | {SAMPLE: WARM_UP_RECORDING.read_bytes()}

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        if name not in self._files:
            raise NotFound(NOTHING_HERE)
        resp.data = self._files[name]
        resp.content_type = TYPES[Path(name).suffix]
        resp.set_headers(
            {
                "Content-Security-Policy": POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            }
        )

    on_head = on_get


class Page:
    """Resource of one page at its own path.

    Args:
        pages: The loaded files.
        name: The page's file name.
    """

    def __init__(self, pages: Pages, name: str) -> None:
        self._pages = pages
        self._name = name

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._pages.on_get(req, resp, self._name)

    on_head = on_get


class Description:
    """Resource of the OpenAPI document."""

    def __init__(self, config: Config) -> None:
        self._document: dict[str, Any] = document(config.asks_for_key)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = self._document
        resp.set_header("Cache-Control", "no-cache")

    on_head = on_get
