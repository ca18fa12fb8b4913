"""Pages of other sites: which ones a browser lets use the service."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from app.config import Config, ConfigError
from tests.support.certificate import certificate
from tests.support.client import TRANSCRIPTIONS, form
from tests.support.entry import Entry
from tests.support.stub_worker import Reply

WINDOW = b"RIFF"


class TestForOtherSites:
    """An entry with TLS and two sites whose pages may use it; a key is asked for."""

    OURS = "https://meetings.example.com"

    @pytest.fixture(scope="class")
    @classmethod
    def address(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        folder = tmp_path_factory.mktemp("sites")
        with Entry.started(
            folder / "run", TLS_CERTIFICATE=str(certificate(folder)), API_TOKEN="right",
            CORS_ORIGINS=f"{cls.OURS},http://localhost:5173",
        ) as running:  # fmt: skip
            running.workers[0].reply = Reply(headers={"Vary": "Accept"})
            yield running.url

    @pytest.fixture
    def browser(self, address) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=address, verify=False, timeout=30) as client:
            yield client

    def test_preflight_is_answered_without_a_key(self, browser):
        asking = {
            "Origin": self.OURS, "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-stainless-lang",
        }  # fmt: skip
        answer = browser.options(TRANSCRIPTIONS, headers=asking)

        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == self.OURS
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
        assert "access-control-allow-credentials" not in answer.headers

    def test_answers_and_refusals_can_be_read_by_those_sites(self, browser):
        sent = form(WINDOW, {"model": "whisper-1"})
        for key, status, vary in (("right", 200, "Accept, Origin"), ("wrong", 401, "Origin")):
            answer = browser.post(
                TRANSCRIPTIONS, content=sent.read(),
                headers=dict(sent.headers)
                | {"Origin": self.OURS, "Authorization": f"Bearer {key}"},
            )  # fmt: skip
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == self.OURS
            assert answer.headers["vary"] == vary

    @pytest.mark.parametrize(
        "origin",
        ["https://evil.example", "null", "", "*", "https://meetings.example.com.evil.example",
         "http://meetings.example.com", "https://meetings.example.com, https://evil.example"],
    )  # fmt: skip
    def test_no_other_site_is_named(self, browser, origin):
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for method, path in (("OPTIONS", TRANSCRIPTIONS), ("GET", "/health")):
            answer = browser.request(method, path, headers=asking)
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "Origin"

    def test_browsers_come_back_over_tls_alone(self, browser):
        for path in ("/docs", "/status", "/health", "/nothing"):
            told = browser.get(path).headers["strict-transport-security"]
            assert told == "max-age=31536000"


@pytest.mark.parametrize("origin", ["*", "evil.example", "https://a.example/", "null", "file://"])
def test_origin_that_is_none_stops_the_start(origin):
    with pytest.raises(ConfigError, match="CORS_ORIGINS"):
        Config(cors_origins=(origin,))
