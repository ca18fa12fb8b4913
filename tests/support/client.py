"""A client of the application in this process: real requests, no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import falcon.testing
import httpx

from app.config import Config
from app.engine.engine import Engine
from app.main import create_app

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"


@dataclass(frozen=True)
class Client:
    """Sends forms to a worker's application and hands back its answers."""

    wsgi: falcon.testing.TestClient

    @classmethod
    def of(cls, config: Config, engine: Engine) -> Client:
        return cls(falcon.testing.TestClient(create_app(config, engine)))

    def get(self, path: str, **options: Any) -> falcon.testing.Result:
        return self.wsgi.simulate_get(path, **options)

    def post(
        self,
        file: bytes | None,
        fields: dict[str, Any] | None = None,
        *,
        path: str = TRANSCRIPTIONS,
        headers: dict[str, str] | None = None,
        name: str = "recording.wav",
    ) -> falcon.testing.Result:
        """Send a form with a file (None: without), `model` and further fields."""
        request = form(file, {"model": "whisper-1"} | (fields or {}), name)
        return self.wsgi.simulate_post(
            path,
            body=request.read(),
            headers={"Content-Type": request.headers["Content-Type"]} | (headers or {}),
        )


def form(file: bytes | None, fields: dict[str, Any], name: str = "recording.wav") -> httpx.Request:
    """A multipart request; a field that is None is left out, a list is repeated."""
    given = {key: value for key, value in fields.items() if value is not None}
    files = {"file": (name, file)} if file is not None else {"ignored": ("a", b"")}
    return httpx.Request("POST", "http://worker/", data=given, files=files)


def assert_error(result: falcon.testing.Result, status: int, param: str | None = None) -> None:
    """The answer is an OpenAI error object of this status, about this parameter."""
    assert result.status_code == status
    assert result.headers["content-type"] == "application/json"
    assert set(result.json) == {"error"}
    error = result.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert len(error["message"]) <= 300
    assert error["param"] == param
