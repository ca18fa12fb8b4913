"""The balancer's own errors: true, in the API's form, and read by clients that still send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import falcon.inspect
import pytest

from app.config import ROOT, Config
from app.engine.engine import Engine
from app.errors import NOTHING_HERE, balancers_files
from app.main import create_app
from tests.support.client import TRANSCRIPTIONS, TRANSLATIONS
from tests.support.entry import Entry
from tests.support.http import HTTP
from tests.support.openai_shapes import assert_shape

LARGE = 105_000_000
PAGES = ("/", "/health", "/v1/models", "/v1/models/a", "/docs", "/playground", "/openapi.json",
         "/lb-status", "/status", "/status/figures", "/pages/docs.js")  # fmt: skip


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    with Entry.started(tmp_path_factory.mktemp("errors")) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    with Entry.started(tmp_path_factory.mktemp("keyed"), API_TOKEN="right") as running:
        yield running


def test_files_are_those_that_the_error_tree_writes():
    for name, text in balancers_files().items():
        assert (ROOT / "deploy" / "haproxy" / name).read_text() == text, "run python -m app.errors"


def post(port: int, path: str, size: int, method: str = "POST") -> tuple[int, str | None, dict]:
    """Send a body as the standard library does: all of it, and only then read the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, bytes(size))
        answer = connection.getresponse()
        return answer.status, answer.headers["Allow"], json.loads(answer.read())["error"]
    finally:
        connection.close()


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000, LARGE])
@pytest.mark.parametrize(
    "path",
    ["/audio/transcriptions", "/v1/v1/audio/transcriptions", "/openai/v1/audio/transcriptions",
     "/v1/audio/transcription", "/v1/audio/transcriptions/", "/v1/chat/completions",
     "//v1/audio/transcriptions", "/metrics"],
)  # fmt: skip
def test_wrong_path_is_404_that_names_the_right_one(entry, path, size):
    status, _, error = post(entry.port, path, size)

    assert (status, error["code"]) == (404, "not_found")
    assert error["message"] == NOTHING_HERE
    assert TRANSCRIPTIONS in error["message"]


@pytest.mark.parametrize("size", [10, 5_000_000])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("path", PAGES)
def test_body_for_a_page_is_405(entry, path, method, size):
    status, allow, error = post(entry.port, path, size, method)

    assert (status, error["code"]) == (405, "method_not_allowed")
    assert allow == "GET, HEAD"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
def test_other_method_for_a_transcription_is_405(entry, path, method):
    status, allow, error = post(entry.port, path, 1_000_000, method)

    assert (status, error["code"]) == (405, "method_not_allowed")
    assert allow == "POST"


@pytest.mark.parametrize("path", ["/health", "/lb-status"])
def test_get_with_a_body_is_answered(entry, path):
    """Which is of no use, and is valid HTTP."""
    assert HTTP.request("GET", entry.url + path, content=b"x" * 100).status_code == 200


def test_pages_are_those_that_the_workers_have():
    config = Config()
    routes = {route.path for route in falcon.inspect.inspect_app(
        create_app(config, Engine(config))).routes}  # fmt: skip
    own = {"/lb-status", "/status", "/status/figures"}
    examples = {"/v1/models/{model_id:path}": "/v1/models/a", "/pages/{name}": "/pages/docs.js"}

    known = {examples.get(path, path) for path in routes} - {TRANSCRIPTIONS, TRANSLATIONS}
    known -= {path for path in known if path.startswith("/v1/realtime/")}  # POST alone
    assert known - {"/metrics"} == set(PAGES) - own


def test_upload_over_the_limit_is_413_that_its_client_reads(entry):
    status, _, error = post(entry.port, TRANSCRIPTIONS, LARGE)

    assert (status, error["code"], error["param"]) == (413, "file_too_large", "file")
    assert entry.workers[0].heard == []


def test_large_upload_with_a_wrong_key_is_401_that_its_client_reads(keyed):
    status, _, error = post(keyed.port, TRANSCRIPTIONS, 50_000_000)

    assert (status, error["code"]) == (401, "invalid_api_key")


def test_expectation_is_answered_before_the_body_is_sent(entry):
    """curl asks so above 1 MB."""
    head = f"POST /audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n"
    with socket.create_connection(("127.0.0.1", entry.port), timeout=60) as connection:
        connection.sendall((head + "Expect: 100-continue\r\n\r\n").encode())
        assert connection.recv(100).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 100 "))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_every_address_of_localhost_is_served(entry, host):
    with socket.create_connection((host, entry.port), timeout=60) as connection:
        connection.sendall(b"GET /lb-status HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/nothing", "/metrics", "/status?key=a", "//a"])
def test_every_error_has_the_shape(entry, path):
    answer = HTTP.get(entry.url + path)

    assert answer.status_code in (400, 404)
    assert_shape("error", answer.json())
    assert answer.headers["x-content-type-options"] == "nosniff"
