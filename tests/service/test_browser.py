"""The pages in a real Chromium, in front of the whole service, with real recordings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Keys

from app import __version__
from tests.support import browser
from tests.support.browser import Browser
from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.recordings import DATA, long_recording, recording, wav
from tests.support.stack import KEY, Stack
from tests.support.text import SENTENCE, words
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not browser.at_hand(), reason=browser.MISSING)

AUSTEN = recording("austen_0890.wav").path
BAD = recording("bad_text_named.wav").path
PHONE = (360, 740)
EMPTY = "!document.querySelector('#key-field').hidden"
DONE = "!document.querySelector('#results').hidden"
FAILED = "!document.querySelector('#failure').hidden"
LIVE = "!document.querySelector('#figures').hidden"
READ = "document.querySelector('#state').hidden"
LINES = "document.querySelectorAll('#transcript li').length"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser.started(AUSTEN) as started:
        yield started


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "a long one.wav"
    path.write_bytes(wav(long_recording(45).samples))
    return path


@pytest.fixture(scope="module")
def endless_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than anybody waits for; whoever sends it leaves."""
    path = tmp_path_factory.mktemp("endless") / "endless.wav"
    path.write_bytes(wav(long_recording(600).samples))
    return path


@pytest.fixture
def page(chromium: Browser, keyed: Stack) -> Browser:
    """The playground, with a key; nothing has happened yet."""
    return playground(chromium, keyed)


def playground(
    chromium: Browser, keyed: Stack, size: tuple[int, int] = browser.DESKTOP, dark: bool = False,
    key: str = KEY,
) -> Browser:  # fmt: skip
    chromium.open(keyed.url + "/playground", size, dark)
    chromium.run("sessionStorage.clear()")
    chromium.open(keyed.url + "/playground", size, dark)
    chromium.until(EMPTY)
    chromium.find("#key").send_keys(key)
    return chromium


def choose(page: Browser, path: Path, ends: str = DONE) -> None:
    """Choose a file, and wait for what comes of it."""
    page.find("#file").send_keys(str(path))
    page.until(ends)


def shown(page: Browser, choice: str) -> str:
    """The answer in a format, once it is there."""
    page.find(f"[data-choice={choice}]").click()
    page.until("!document.querySelector('#copy').disabled")
    return str(page.run("return document.querySelector('#result').textContent"))


def answer(keyed: Stack, path: Path, response_format: str) -> str:
    """What the service tells any other client."""
    return HTTP.post(
        keyed.url + TRANSCRIPTIONS,
        data={"model": "whisper-1", "response_format": response_format,
              "timestamp_granularities[]": "word"},
        files={"file": path.read_bytes()},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    ).text  # fmt: skip


@contextmanager
def house_full(stack: Stack, path: Path) -> Iterator[None]:
    """Every slot is taken by a client that leaves at the end of the block."""
    form = {"data": {"model": "whisper-1", "stream": "true"}, "files": {"file": path.read_bytes()}}
    with ExitStack() as clients:
        for _ in range(int(stack.settings["MAX_CONCURRENT_TRANSCRIPTIONS"])):
            streamed = clients.enter_context(
                HTTP.stream(
                    "POST", stack.url + TRANSCRIPTIONS, headers={"Authorization": f"Bearer {KEY}"},
                    **form,
                )
            )  # fmt: skip
            assert streamed.status_code == 200
        yield
    assert until(lambda: stack.metric(1, "transcription_slots_in_use") == 0)


def status(chromium: Browser, keyed: Stack, **look: object) -> Browser:
    """The status page where an operator sees it."""
    url = f"http://127.0.0.1:{keyed.settings['STATS_PORT']}/status"
    chromium.open(url, **look)  # type: ignore[arg-type]
    chromium.until(LIVE)
    return chromium


class TestPlayground:
    def test_file_becomes_text_in_every_format(self, page, keyed):
        """With one request; only subtitles are asked for again, since the service lays them out."""
        choose(page, AUSTEN)

        assert words(page.text("#transcript p")) == words(SENTENCE)
        assert page.text("#spoken") == "English, 100 %"
        assert page.text("#model") == "tiny.en"
        assert 50 < int(page.text("#confidence").removesuffix(" %")) <= 100
        posts = [url for url in page.requested() if TRANSCRIPTIONS in url]
        assert len(posts) == 1
        for name in ("text", "srt", "vtt"):
            assert shown(page, name) == answer(keyed, AUSTEN, name)
        for name in ("json", "verbose_json"):
            assert json.loads(shown(page, name)) == json.loads(answer(keyed, AUSTEN, name))
        assert page.complaints() == []

    def test_nothing_but_this_service_is_asked_and_no_address_holds_the_key(self, page, keyed):
        choose(page, AUSTEN)

        asked = page.requested()
        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {
            keyed.url.removeprefix("http://")
        }
        assert KEY not in " ".join(asked)
        assert KEY not in page.text("#curl") + page.text("#python")
        assert page.run("return sessionStorage.getItem('key')") == KEY
        assert page.run("return localStorage.length") == 0

    def test_lines_for_curl_and_python_do_the_same(self, page, keyed):
        choose(page, AUSTEN)
        shown(page, "text")
        environment = os.environ | {"KEY": KEY}

        curl = subprocess.run(
            ["sh", "-c", page.text("#curl")], cwd=DATA, env=environment, timeout=60,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        python = subprocess.run(
            [sys.executable, "-c", page.text("#python").replace('"KEY"', repr(KEY))],
            cwd=DATA, timeout=60, capture_output=True, text=True, check=True,
        )  # fmt: skip

        assert words(curl.stdout) == words(python.stdout) == words(SENTENCE)

    def test_words_light_up_as_they_are_heard(self, page):
        choose(page, AUSTEN)
        page.find("#play").click()
        lit = [
            page.until(
                f"(document.querySelector('.heard')?.textContent ?? {json.dumps(before)})"
                f" !== {json.dumps(before)} && document.querySelector('.heard').textContent"
            )
            for before in ("", "Unless", "to", "be")
        ]
        page.find("#play").click()

        assert lit[0] == "Unless"
        assert len(set(lit)) > 2
        page.until("document.querySelector('#play').textContent === 'Play'")

    def test_text_grows_as_it_is_decoded(self, page, long_file):
        page.run(
            f"""window.counts = [];
            const cancel = document.querySelector("#cancel");
            const look = () => cancel.hidden || counts.push({LINES});
            new MutationObserver(look).observe(
              document.querySelector("#transcript"), {{ childList: true }});"""
        )
        choose(page, long_file)
        counts, final = page.run(f"return [counts, {LINES}]")

        assert counts == sorted(counts)
        assert len(set(counts)) >= 3, "while it worked there were more and more lines"
        assert min(count for count in counts if count) <= final / 2
        assert float(page.text("#first").split()[0]) < float(page.text("#all").split()[0])
        assert page.complaints() == []

    def test_cancel_ends_the_work(self, page, keyed, endless_file):
        page.find("#file").send_keys(str(endless_file))
        page.until(f"{LINES} > 0")
        assert keyed.metric(1, "transcription_slots_in_use") == 1

        page.find("#cancel").click()

        assert page.text("#state") == "Cancelled."
        assert not page.find("#results").is_displayed()
        assert until(lambda: keyed.metric(1, "transcription_slots_in_use") == 0)
        assert page.complaints() == []

    def test_file_that_is_no_recording_is_a_sentence(self, page):
        choose(page, AUSTEN)
        choose(page, BAD, FAILED)

        assert page.text("#failure-text") == "The file could not be decoded as audio."
        assert page.text("#time") == "0:00 / 0:00", "nothing is left of the one before"
        assert page.text("#transcript") == ""
        assert page.text("#state") == ""
        assert page.complaints("status of 400") == []

    def test_busy_service_is_a_sentence_and_a_second_try(self, page, keyed, endless_file):
        with house_full(keyed, endless_file):
            choose(page, AUSTEN, FAILED)
        assert page.text("#failure-text").startswith("All workers are busy")
        page.find("#again").click()
        page.until(DONE)

        assert words(page.text("#transcript p")) == words(SENTENCE)
        assert not page.find("#failure").is_displayed()
        assert page.complaints("status of 503") == []

    def test_wrong_key_is_a_sentence_and_the_right_one_is_kept_for_the_tab(self, chromium, keyed):
        page = playground(chromium, keyed, key="wrong")
        choose(page, AUSTEN, FAILED)
        assert page.text("#failure-text") .startswith("The API key is missing or invalid.")
        assert page.run("return document.activeElement.id") == "key"

        page.find("#key").clear()
        page.find("#key").send_keys(KEY, Keys.ENTER)
        page.until(DONE)
        page.driver.refresh()
        page.until(EMPTY)

        assert page.run("return document.querySelector('#key').value") == KEY
        assert page.complaints("status of 401") == []

    def test_silence_is_said(self, page):
        choose(page, recording("silence_3s.wav").path)

        assert page.text("#state") == "Done. Nobody speaks in it."
        assert page.text("#transcript") == ""
        assert shown(page, "text").strip() == ""

    def test_wishes_are_sent(self, page):
        page.find("summary").click()
        page.find("#language").send_keys("no language")
        choose(page, AUSTEN, FAILED)

        assert "language" in page.text("#failure-text").lower()
        page.find("#language").clear()
        page.find("#prompt").send_keys("Elinor's, and Marianne's")
        page.find("#again").click()
        page.until(DONE)
        assert """-F 'prompt=Elinor'\\''s, and Marianne'\\''s'""" in page.text("#curl")

    def test_dropped_file(self, page):
        page.run(
            """const name = "dropped.txt", moved = new DataTransfer();
            moved.items.add(new File(["no sound"], name));
            dispatchEvent(new DragEvent("drop", { dataTransfer: moved, cancelable: true }));"""
        )
        page.until(FAILED)

        assert page.text("#name") == "dropped.txt"

    def test_microphone(self, page):
        """It hears the same sentence over and over."""
        page.find("#record").click()
        page.until("document.querySelector('#time').textContent >= '0:06'")
        page.find("#record").click()
        page.until(DONE)

        heard = words(page.text("#transcript"))
        assert len(set(heard) & set(words(SENTENCE))) >= 5, heard
        assert page.text("#name") == "recording.webm"
        assert page.text("#record") == "Record"
        page.find("#play").click()
        page.until("document.querySelector('.heard')")
        page.find("#play").click()
        assert page.complaints() == []


class TestStatus:
    def test_it_shows_the_pool_and_refreshes_itself(self, chromium, keyed):
        page = status(chromium, keyed)
        assert page.text("#slots") == "0"
        failures = "[...document.querySelectorAll('#faults .what')].map((e) => e.textContent)"
        before = page.run(f"return {failures}")

        wrong = HTTP.post(keyed.url + TRANSCRIPTIONS, headers={"X-Request-ID": "whose-key"})
        assert wrong.status_code == 401
        good = answer(keyed, AUSTEN, "text")

        assert words(good) == words(SENTENCE)
        page.until("document.querySelector('#faults small').textContent.includes('whose-key')")
        assert page.run(f"return {failures}")[0] == "401 invalid_api_key"
        shown = page.run(f"return {failures}")
        earlier = [one for n, one in enumerate(before) if n or "401" not in one]
        assert shown[1:] == earlier[: len(shown) - 1], "errors of one kind in a row are one line"
        page.until("Number(document.querySelector('#rate').textContent) > 0")
        page.until("Number(document.querySelector('#factor').textContent) > 0")
        page.until("/CPU busy\\d/.test(document.querySelector('#workers').textContent)")
        assert page.text("#workers").startswith("w1 up")
        assert page.text("#running").startswith(f"tiny.en, version {__version__}; balancer up for ")
        page.until("/^[\\d.]+ m?s$/.test(document.querySelector('#latency').textContent)")
        assert page.text("#latency-note").startswith("95 % within ")
        assert page.hosts() == {f"127.0.0.1:{keyed.settings['STATS_PORT']}"}
        assert page.complaints() == []

    def test_full_house_is_seen(self, chromium, keyed, endless_file):
        page = status(chromium, keyed)
        with house_full(keyed, endless_file):
            assert "server_busy" in answer(keyed, AUSTEN, "text")
            page.until("document.querySelector('#slots').textContent === '2'")
            assert page.text("#verdict") != "1 of 1 workers up."
        page.until("document.querySelector('#refused').textContent.includes('deadline')")
        page.until("document.querySelector('#verdict').textContent.includes('refused')")

    def test_balancer_that_does_not_answer_is_said(self, chromium, keyed):
        page = status(chromium, keyed)
        with page.network(offline=True):
            page.until("document.querySelector('#verdict').textContent.includes('does not answer')")

        page.until("!document.querySelector('#verdict').textContent.includes('does not answer')")

    def test_values_are_shown_under_the_pointer_and_by_arrow_keys(self, chromium, keyed):
        page = status(chromium, keyed)
        assert words(answer(keyed, AUSTEN, "text")) == words(SENTENCE)
        page.until("document.querySelector('#requests-chart .answered:not([height=\"0\"])')")
        chart = page.find("#requests-chart")
        right = chart.size["width"] // 2 - 3
        ActionChains(page.driver).move_to_element_with_offset(chart, right, 0).perform()

        page.until("document.querySelector('#requests-step').textContent.startsWith('now: ')")
        ActionChains(page.driver).move_to_element(page.find("h1")).perform()
        page.until("document.querySelector('#requests-step').textContent === ''")
        page.run("arguments[0].focus()", chart)
        earlier = "/ ago: [\\d.]+ answered, 0 refused, /"
        text = "document.querySelector('#requests-step').textContent"
        for _ in range(4):
            ActionChains(page.driver).send_keys(Keys.ARROW_LEFT).perform()
        page.until(f"{earlier}.test({text})")

    def test_key_is_asked_for_and_shows_the_figures(self, chromium, keyed):
        chromium.open(keyed.url + "/status")
        chromium.run("sessionStorage.clear()")
        chromium.open(keyed.url + "/status")
        chromium.until("!document.querySelector('#key-form').hidden")
        assert not chromium.find("#figures").is_displayed()
        assert chromium.violations() == []

        chromium.find("#key").send_keys("wrong", Keys.ENTER)
        chromium.until("document.querySelector('#verdict').textContent === 'The API key is wrong.'")
        chromium.find("#key").clear()
        chromium.find("#key").send_keys(KEY, Keys.ENTER)
        chromium.until(LIVE)

        assert not chromium.find("#key-form").is_displayed()
        assert chromium.text("#workers").startswith("w1 up")
        assert KEY not in " ".join(chromium.requested())
        chromium.open(keyed.url + "/playground")
        chromium.until(EMPTY)
        assert chromium.run("return document.querySelector('#key').value") == KEY, "kept in the tab"
        assert chromium.complaints("status of 401") == []

    def test_stats_port_leads_to_the_pages_of_the_clients_port(self, chromium, keyed):
        page = status(chromium, keyed)
        page.find("nav a[href='/playground']").click()
        page.until("document.querySelector('#drop')")

        assert page.driver.current_url == keyed.url + "/playground"


def look_at(page: Browser, keyed: Stack, name: str, size: tuple[int, int], dark: bool) -> None:
    """A page with something on it."""
    if name == "/docs":
        page.open(keyed.url + name, size, dark)
        page.until(READ)
    elif name == "/status":
        status(page, keyed, size=size, dark=dark)
    else:
        playground(page, keyed, size, dark)
        page.find("summary").click()
        choose(page, BAD, FAILED)
        choose(page, AUSTEN)
        shown(page, "verbose_json")
        page.run("document.querySelector('#failure').hidden = false")


@pytest.mark.parametrize("name", ["/playground", "/status", "/docs"])
@pytest.mark.parametrize(
    ("size", "dark"), [(browser.DESKTOP, False), (browser.DESKTOP, True), (PHONE, True)],
    ids=["light", "dark", "phone"],
)  # fmt: skip
def test_accessible_and_no_wider_than_the_window(chromium, keyed, name, size, dark):
    look_at(chromium, keyed, name, size, dark)

    assert chromium.violations() == []
    assert chromium.overflow() <= 0


class TestKeyboard:
    def test_playground(self, page):
        choose(page, AUSTEN)
        page.run("document.activeElement.blur(); scrollTo(0, 0)")
        page.run("document.querySelector('.skip').focus()")
        reached = []
        while "download" not in reached and len(reached) < 40:
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            reached.append(page.run("return document.activeElement.id"))
        for each in ("file", "record", "key", "play", "waveform", "tab-text", "result", "copy"):
            assert each in reached
        assert "tab-srt" not in reached, "arrows lead there"

        page.find("#tab-text").send_keys(Keys.ARROW_RIGHT)
        assert page.run("return document.activeElement.id") == "tab-json"
        assert page.find("#panel").get_attribute("aria-labelledby") == "tab-json"
        page.find("#tab-json").send_keys(Keys.END)
        assert page.find("#tab-vtt").get_attribute("aria-selected") == "true"
        page.until("document.querySelector('#result').textContent.startsWith('WEBVTT')")

        slider = page.find("#waveform")
        slider.send_keys(Keys.ARROW_RIGHT)
        page.until("document.querySelector('#waveform').ariaValueNow === '5'")
        assert slider.get_attribute("aria-valuetext") == "0:05 of 0:05"
        slider.send_keys(Keys.HOME)
        page.until("document.querySelector('#waveform').ariaValueNow === '0'")
        slider.send_keys(Keys.SPACE)
        page.until("document.querySelector('#play').textContent === 'Pause'")
        slider.send_keys(Keys.SPACE)

    def test_docs(self, chromium, keyed):
        chromium.open(keyed.url + "/docs")
        chromium.until(READ)
        keys = ActionChains(chromium.driver)
        keys.send_keys(Keys.TAB).send_keys(Keys.ENTER).perform()
        assert chromium.run("return document.activeElement.id") == "routes"

        summary = chromium.find("details:not([open]) summary")
        box = summary.find_element("xpath", "..")
        summary.send_keys(Keys.ENTER)

        assert box.get_attribute("open") is not None
        assert chromium.complaints() == []
