"""A model hub on loopback: what huggingface_hub asks for when it fetches one repository."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STEP_BYTES = 5 << 20
STEP_S = 0.1


@contextmanager
def hub_of(files: dict[str, bytes]) -> Iterator[str]:
    """Serve these files as every repository's, slowly, until the block ends; yields the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head(files[self.path.rpartition("/")[2]])

        def do_GET(self) -> None:
            if "/revision/" in self.path:
                self._json({"id": "repository", "sha": COMMIT, "siblings": []})
            elif "/tree/" in self.path:
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": digest(content)}
                    for name, content in files.items()
                ]
                self._json(entries)
            else:
                content = files[self.path.rpartition("/")[2]]
                self._head(content)
                for begin in range(0, len(content), STEP_BYTES):
                    self.wfile.write(content[begin : begin + STEP_BYTES])
                    time.sleep(STEP_S)

        def _head(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{digest(content)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def _json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
