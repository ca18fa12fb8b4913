"""HTTP as attackers speak it, to the balancer and to a worker: raw sockets, real processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.processes import descendants
from tests.support.recordings import recording, wav
from tests.support.stack import Stack
from tests.support.steady import ask
from tests.support.waiting import until
from tests.support.wire import Heard, Wire, exchange

WINDOW = wav(recording("goforward_16k.wav").waveform())
SMUGGLED = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: smuggled\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(headers: bytes, body: bytes = b"", path: str = "/v1/models") -> bytes:
    """Return a request with a Host header and these headers exactly as given."""
    return b"POST " + path.encode() + b" HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n" + body


def get(path: str, headers: bytes = b"", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n".encode() + headers + b"\r\n"


def length(value: object) -> bytes:
    return f"Content-Length: {value}\r\n".encode()


# What two servers on the way may read as one request and as two. Some are refused, some a server
# may put right (RFC 9112); none is ever two requests.
CASES = {
    "two equal lengths": post(length(5) * 2, b"hello"),
    "two lengths": post(length(5) + length(5 + len(SMUGGLED)), b"hello" + SMUGGLED),
    "two lengths, the longer first": post(length(len(SMUGGLED)) + length(0), SMUGGLED),
    "a list of equal lengths": post(length("5, 5"), b"hello"),
    "a list of lengths": post(length(f"0, {len(SMUGGLED)}"), SMUGGLED),
    "length with a sign": post(length("+5"), b"hello"),
    "negative length": post(length(-5), b"hello"),
    "length in another base": post(length("0x5"), b"hello"),
    "length with an underscore": post(length("1_0"), b"hello"),
    "length without a number": post(length(""), b"hello"),
    "length with a fold": post(b"Content-Length: 5\r\n 0\r\n", b"hello"),
    "length after a space": post(b"Content-Length : 5\r\n", b"hello"),
    "length and chunks": post(length(5 + len(SMUGGLED)) + CHUNKED, b"0\r\n\r\n" + SMUGGLED),
    "chunks and a short length": post(
        CHUNKED + length(4), b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"
    ),
    "two encodings": post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    "unknown encoding": post(b"Transfer-Encoding: xchunked\r\n" + length(5), b"hello"),
    "encoding before a space": post(b"Transfer-Encoding : chunked\r\n" + length(5), b"hello"),
    "encoding after a control": post(b"Transfer-Encoding: \x0bchunked\r\n" + length(5), b"hello"),
    "encoding in a fold": post(b"Transfer-Encoding:\r\n chunked\r\n" + length(5), b"0\r\n\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "chunked, then another": post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity\r\n" + length(5), b"hello"),
    "chunks in HTTP/1.0": post(CHUNKED, b"0\r\n\r\n" + SMUGGLED).replace(b"1.1", b"1.0", 1),
    "chunk size that is none": post(CHUNKED, b"zz\r\nhello\r\n0\r\n\r\n"),
    "negative chunk": post(CHUNKED, b"-1\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a prefix": post(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk longer than it says": post(CHUNKED, b"5\r\nhelloX0\r\n\r\n"),
    "chunk with an odd extension": post(CHUNKED, b"5;a\nxx\r\nhello\r\n0\r\n\r\n"),
    "length in a trailer": post(CHUNKED, b"0\r\nContent-Length: 5\r\n\r\n"),
    "encoding in a trailer": post(CHUNKED, b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "lines without CR": get("/v1/models").replace(b"\r\n", b"\n"),
    "CR in a header": get("/v1/models", b"X: a\rContent-Length: 5\r\n"),
    "LF in a header": get("/v1/models", b"X: a\nY: b\r\n"),
    "NUL in a header": get("/v1/models", b"X: a\x00b\r\n"),
    "header without a colon": get("/v1/models", b"foo\r\n"),
    "header without a name": get("/v1/models", b": foo\r\n"),
    "header in a fold": get("/v1/models", b"X: a\r\n b\r\n"),
    "fold in the first header": b"GET /v1/models HTTP/1.1\r\n Host: a\r\n\r\n",
    "two hosts": get("/v1/models", b"Host: b\r\n"),
    "HTTP/0.9": b"GET /v1/models\r\n",
    "HTTP/2.0 in a line": get("/v1/models").replace(b"1.1", b"2.0"),
    "no HTTP": b"hello\r\n\r\n",
    "another method": get("/v1/models", method="G@T"),
    "another encoding in the path": b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown expectation": post(b"Expect: magic\r\n" + length(5), b"hello"),
    "many headers": get("/v1/models", b"".join(b"X%d: 1\r\n" % n for n in range(500))),
    "a long header": get("/v1/models", b"X: " + b"a" * 20_000 + b"\r\n"),
    "a header of 2 MB": get("/v1/models", b"X: " + b"a" * 2_000_000 + b"\r\n"),
    "a long path": get("/" + "a" * 20_000),
    "a path of 2 MB": get("/" + "a" * 2_000_000),
}  # fmt: skip
# Those where only a refusal is right, wherever they are met.
REFUSED = {
    "two lengths", "two lengths, the longer first", "a list of lengths", "length with a sign",
    "negative length", "length in another base", "length with an underscore",
    "length without a number", "length after a space", "unknown encoding",
    "encoding before a space", "encoding after a control", "CR in a header", "NUL in a header",
    "two hosts", "HTTP/0.9", "no HTTP", "many headers", "a long header", "a header of 2 MB",
    "a long path", "a path of 2 MB",
}  # fmt: skip
CLIENTS_FAULT = range(400, 432)


def judge(name: str, heard: Heard) -> str | None:
    """Return the fault of this answer; None: it has none."""
    statuses = heard.statuses
    if len(statuses) > 1 or b"smuggled" in heard.raw:
        return f"{name}: two requests: {statuses}"
    if not statuses:
        # A reset that overtakes its answer is a refusal too.
        return None if heard.closed else f"{name}: no answer"
    if statuses[0] >= 500:
        return f"{name}: {statuses[0]}"
    if name in REFUSED and statuses[0] not in CLIENTS_FAULT:
        return f"{name}: {statuses[0]}, not refused"
    if statuses[0] == 400 and not heard.closed and b"NUL" not in name.encode():
        return f"{name}: refused, and the connection goes on"
    return None


def faults(port: int) -> list[str]:
    """Return the faults of the answers to all cases."""
    with ThreadPoolExecutor(8) as clients:
        heard = clients.map(lambda sent: exchange(port, sent), CASES.values())
        found = [judge(name, one) for name, one in zip(CASES, heard, strict=True)]
    return [fault for fault in found if fault]


def entry(running: Stack) -> int:
    return int(running.settings["LB_PORT"])


def worker(running: Stack) -> int:
    return int(running.settings["WORKER_BASE_PORT"])


def test_no_malformed_request_is_two_through_the_balancer(stack):
    assert faults(entry(stack)) == []
    assert HTTP.get(stack.url + "/health").status_code == 200


def test_no_malformed_request_is_two_at_a_worker(stack):
    assert faults(worker(stack)) == []
    assert HTTP.get(stack.worker_url(1) + "/health").status_code == 200


@pytest.mark.parametrize(
    "name", ["two lengths", "many headers", "a long path", "chunk size that is none"]
)
def test_worker_refuses_in_the_apis_form(stack, name):
    heard = exchange(worker(stack), CASES[name])

    assert heard.headers["content-type"] == "application/json"
    assert set(json.loads(heard.body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"zz\r\n", b"5\r\nhelloXX", b"0\r\nContent-Length: 5\r\n\r\n"])
def test_broken_chunks_of_an_upload_are_the_clients_mistake(stack, body):
    """They were a 500, as if they were a bug."""
    head = CHUNKED + b"Content-Type: multipart/form-data; boundary=B\r\n"
    for port in (entry(stack), worker(stack)):
        heard = exchange(port, post(head, body, TRANSCRIPTIONS))
        assert heard.statuses == [400]


def test_pipelined_requests_are_answered_in_their_order(stack):
    paths = ("/v1/models", "/nothing", "/health", "/v1/audio/transcriptions", "/lb-status")
    for port, expected in ((entry(stack), 200), (worker(stack), 404)):
        heard = exchange(port, b"".join(get(path) for path in paths))
        assert heard.statuses == [200, 404, 200, 405, expected]


PATHS = (
    "/metrics", "//metrics", "///metrics", "/./metrics", "/%6detrics", "/%2fmetrics",
    "/%2e/metrics",
    "/metrics/", "/METRICS", "/metrics;x", "/metrics?x", "/metrics%00", "/metrics%20", "/\\metrics",
    "/v1/../metrics", "/v1/models/../../metrics", "/v1/models/..%2f..%2fmetrics",
    "/pages/..%2f..%2fmetrics", "http://a/metrics", "http://a//metrics", "http://127.0.0.1/metrics",
    "//a/metrics", "/metrics/refused", "//metrics/refused", "/stats", "/haproxy?stats", "/;csv",
    "/admin", "//lb-status", "//status/figures", "/status/../metrics", "/%68ealth",
    "//v1/audio/transcriptions", "/v1/%61udio/transcriptions", "/v1/audio/%74ranscriptions",
    "/.env", "/pages/../../../etc/passwd", "/status/..%2f..%2fkeys.json",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"])
def test_no_spelling_of_a_path_leads_to_what_is_not_for_strangers(stack, method):
    """`//metrics` and `/%6detrics` did, and `//v1/audio/transcriptions` led past the slots, the
    rate limit and the limits of keys."""
    with ThreadPoolExecutor(8) as clients:
        sent = [get(path, length(0), method) for path in PATHS]
        answers = list(clients.map(lambda one: exchange(entry(stack), one, 3), sent))
    for path, heard in zip(PATHS, answers, strict=True):
        if method == "OPTIONS" and path.startswith("/v1/models/"):
            assert heard.body == b"", path  # what may be done with a model of that name
        else:
            assert heard.statuses[0] in (400, 404, 405), path
        for word in (b"transcription_", b"process_", b"haproxy_", b"Load Balancer", b'workers":'):
            assert word not in heard.raw, path


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Original-URL: /metrics\r\nX-Rewrite-URL: /metrics\r\n",
        b"X-HTTP-Method-Override: GET\r\n",
        b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: ::1\r\n",
        b"X-Outside:\r\n", b"X-Outside: \r\nConnection: X-Outside\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/metrics", "//metrics"])
def test_no_header_leads_there_either(stack, path, headers):
    assert exchange(entry(stack), get(path, headers)).statuses == [404]
    for host in (b"127.0.0.1:8001", b"localhost", b"worker", b"a/metrics"):
        sent = get(path).replace(b"Host: a", b"Host: " + host)
        assert exchange(entry(stack), sent).statuses[0] in (400, 404)


def test_worker_itself_tells_no_stranger_its_metrics(stack):
    """For a spelling that the balancer would let through."""
    page = stack.worker_url(1) + "/metrics"

    assert "transcription_ready" in HTTP.get(page).text
    assert HTTP.get(page, headers={"X-Outside": "true"}).status_code == 404


@pytest.mark.parametrize("path", ["/lb-status", "/status", "/status/figures", "/health"])
@pytest.mark.parametrize("name", ["api_key", "api%5Fkey", "X-API-Key", "access_token", "key"])
def test_key_in_the_url_is_refused_wherever_it_is_sent(stack, path, name):
    answer = HTTP.get(stack.url + path + f"?a=b&{name}=sk-1")

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "key_in_url"


def test_path_without_slots_takes_no_body(stack):
    for path, status in (("/v1/models", 405), ("/nothing", 404)):
        announced = exchange(entry(stack), post(length(70_000), bytes(70_000), path=path))
        unannounced = exchange(
            entry(stack), post(CHUNKED, b"11170\r\n" + bytes(70_000) + b"\r\n0\r\n\r\n", path)
        )
        assert (announced.statuses, unannounced.statuses) == ([status], [status])


class Trickle:
    """A client that sends a byte now and then, until the server has enough of it.

    Args:
        port: of the server.
        first: sent at once.
        byte: sent every half second afterwards.
    """

    def __init__(self, port: int, first: bytes, byte: bytes = b"a") -> None:
        self.ended_s: float | None = None
        self.heard = b""
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._send, args=(port, first, byte))
        self.thread.start()

    def _send(self, port: int, first: bytes, byte: bytes) -> None:
        began = time.monotonic()
        with Wire(port, 2) as wire:
            wire.send(first)  # as far as it goes
            wire.socket.settimeout(0.5)
            while not self.stop.is_set():
                try:
                    piece = wire.socket.recv(4096)
                except TimeoutError:
                    wire.send(byte)
                    continue
                except ConnectionError:
                    piece = b""
                self.heard += piece
                if not piece:
                    self.ended_s = time.monotonic() - began
                    return


@contextlib.contextmanager
def trickles(many: dict[str, tuple[int, int, bytes]]) -> Iterator[dict[str, list[Trickle]]]:
    """By name: so many of them at this port, with this first."""
    found = {
        name: [Trickle(port, first) for _ in range(count)]
        for name, (count, port, first) in many.items()
    }
    try:
        yield found
    finally:
        everyone = [one for some in found.values() for one in some]
        for one in everyone:
            one.stop.set()
        for one in everyone:
            one.thread.join()


MULTIPART = b"Content-Type: multipart/form-data; boundary=B\r\n"
PART = b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n'


@pytest.mark.alone
def test_slow_clients_hold_their_own_connection_alone(stack):
    """Heads, bodies and answers that never end: other requests are answered meanwhile, and each
    slow client is disconnected within its limit."""
    unread = b"".join(get("/pages/docs.js") for _ in range(2000))
    upload = post(MULTIPART + length(50_000_000), PART + bytes(2 << 20), TRANSCRIPTIONS)
    window = post(MULTIPART + length(1_000_000), PART, TRANSCRIPTIONS)
    with trickles(
        {
            "heads": (30, entry(stack), b"GET /health HTTP/1.1\r\nHost: a\r\nX: "),
            "bodies": (30, entry(stack), post(length(60_000))),
            "chunks": (10, entry(stack), post(CHUNKED, b"f000\r\n")),
            "windows": (30, entry(stack), window),
            "uploads": (2, entry(stack), upload),
            "unread": (10, entry(stack), unread),
            "heads at a worker": (3, worker(stack), b"GET /health HTTP/1.1\r\nHost: a\r\nX: "),
            "bodies at a worker": (3, worker(stack), window),
        }
    ) as slow:  # fmt: skip
        limited = (
            "heads",
            "bodies",
            "chunks",
            "uploads",
            "heads at a worker",
            "bodies at a worker",
        )

        def all_ended() -> bool:
            return all(one.ended_s is not None for name in limited for one in slow[name])

        answers = []
        deadline = time.monotonic() + 25
        while not all_ended() and time.monotonic() < deadline:
            assert HTTP.get(stack.url + "/health", timeout=10).status_code == 200
            answers.append(ask(stack.url, WINDOW, patience_s=10).outcome)
            time.sleep(0.2)

        assert all_ended(), {name: [one.ended_s for one in slow[name]] for name in limited}
        assert set(answers) == {"200"}
        for name, status in (("uploads", b" 408 "), ("bodies at a worker", b" 408 ")):
            assert all(status in one.heard[:20] for one in slow[name]), name
    assert until(lambda: stack.metric(1, "transcription_slots_in_use") == 0)
    assert all(ask(stack.url, WINDOW).good for _ in range(2))


@pytest.mark.alone
def test_idle_connections_keep_nobody_out(stack):
    """More than there were places before; `python -m tests.measure.crowd` opens ten thousand."""
    with contextlib.ExitStack() as idle:
        for _ in range(1500):
            idle.enter_context(Wire(entry(stack)))
        assert HTTP.get(stack.url + "/health", timeout=60).status_code == 200
        assert ask(stack.url, WINDOW, patience_s=20).good


def test_pool_listens_on_its_entry_alone(stack):
    """All else that its processes open is on the loopback address or has no address."""
    pids = {stack.process.pid, *descendants(stack.process.pid)}
    told = subprocess.run(["ss", "-Hltnup"], capture_output=True, text=True, check=True).stdout
    own = [line.split() for line in told.splitlines() if any(f"pid={pid}," in line for pid in pids)]
    open_to_all = {words[4] for words in own if not words[4].startswith(("127.0.0.1:", "[::1]:"))}

    assert {address.rpartition(":")[2] for address in open_to_all} == {stack.settings["LB_PORT"]}
    assert len({words[4] for words in own}) == 6, "entry (IPv4, IPv6), stats, gateway, two workers"


def test_other_sites_pages_get_nothing_out_of_the_box(stack):
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method, path in (("OPTIONS", TRANSCRIPTIONS), ("GET", "/health"), ("GET", "/lb-status")):
        answer = HTTP.request(method, stack.url + path, headers=asking)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/docs", "/playground", "/status"])
def test_pages_are_framed_sniffed_and_fed_by_nobody(stack, path):
    headers = HTTP.get(stack.url + path).headers

    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert rule in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in headers, "this port speaks plain HTTP"


def test_every_answer_is_what_it_says_it_is(stack):
    for path in ("/", "/health", "/nothing", "/lb-status", "/v1/models", "/metrics"):
        assert HTTP.get(stack.url + path).headers["x-content-type-options"] == "nosniff"
