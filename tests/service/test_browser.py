"""The pages in a real Chromium, in front of the whole service, with real recordings."""

from __future__ import annotations

import asyncio
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
from tests.support.live import LiveClient
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
DETAIL = "document.querySelector('#detail').textContent"
LINES = "document.querySelectorAll('#transcript li').length"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser.started(AUSTEN) as started:
        yield started


@pytest.fixture(scope="module")
def short_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sentences, of which the first comes twice."""
    path = tmp_path_factory.mktemp("short") / "a few sentences.wav"
    path.write_bytes(wav(long_recording(20).samples))
    return path


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "a long one.wav"
    path.write_bytes(wav(long_recording(45).samples))
    return path


@pytest.fixture(scope="module")
def endless_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Longer than any test waits; tests cancel it."""
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
    """Return what the service tells any other client."""
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
        assert page.text("#spoken") == "English", "the model knows no other, so it is not probable"
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
              document.querySelector("#transcript"), {{ childList: true, subtree: true }});"""
        )
        choose(page, long_file)
        counts, final = page.run(f"return [counts, {LINES}]")

        assert counts == sorted(counts)
        assert any(0 < count < final for count in counts), "lines came before the last one did"
        assert float(page.text("#first").split()[0]) < float(page.text("#all").split()[0])
        assert page.complaints() == []

    def test_cancel_ends_the_work_and_keeps_the_text_by_then(self, page, keyed, endless_file):
        page.find("#file").send_keys(str(endless_file))
        page.until(f"{LINES} > 0")
        assert keyed.metric(1, "transcription_slots_in_use") == 1

        page.find("#cancel").click()
        page.until("document.querySelector('#state').textContent === 'Cancelled.'")

        assert until(lambda: keyed.metric(1, "transcription_slots_in_use") == 0)
        lines = page.run(
            "return [...document.querySelectorAll('#transcript p')].map((p) => p.textContent)"
        )
        assert words(shown(page, "text")) == words(" ".join(lines))
        assert json.loads(shown(page, "verbose_json"))["segments"]
        assert not page.find("[data-choice=srt]").is_enabled()
        assert page.find("#incomplete").is_displayed()
        assert page.complaints() == []

    def test_progress_is_the_share_sent_then_the_place_decoded_and_the_time_left(
        self, page, keyed, endless_file
    ):
        share = "document.querySelector('#progress').value"
        with page.network(upload_bytes_per_s=6_000_000):
            page.find("#file").send_keys(str(endless_file))
            page.until(f"/^[1-9]\\d? %$/.test({DETAIL})")
            assert page.text("#state") == "Sending …"
            assert 0 < page.run(f"return {share}") < 1
        page.until(f"/^0:\\d\\d of 10:0\\d, about .* left$/.test({DETAIL})")
        assert page.text("#state") == "Transcribing …"
        assert 0 < page.run(f"return {share}") < 1

        page.find("#cancel").click()
        page.until("document.querySelector('#progress').hidden")
        assert until(lambda: keyed.metric(1, "transcription_slots_in_use") == 0)

    def test_finished_text_stays_until_the_new_one_is_complete(self, page, long_file):
        choose(page, long_file)
        text = page.text("#transcript")
        page.run("document.querySelector('#wishes').requestSubmit()")
        page.until("document.querySelector('#state').textContent === 'Transcribing …'")

        assert page.text("#transcript") == text
        assert page.find("#results").is_displayed()
        page.find("#cancel").click()
        page.until("document.querySelector('#state').textContent === 'Cancelled.'")
        assert page.text("#transcript") == text
        assert page.find("[data-choice=srt]").is_enabled(), "the earlier answer is whole"

    def test_file_that_is_no_recording_is_a_sentence(self, page):
        choose(page, AUSTEN)
        choose(page, BAD, FAILED)

        assert page.text("#failure-text") == "The file could not be decoded as audio."
        assert not page.find("#again").is_displayed(), "it would fail again"
        assert not page.find("#player").is_displayed()
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
        assert page.text("#failure-text").startswith("The API key is missing or invalid.")
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

        assert page.text("#state") == "Done. It holds no speech."
        assert page.text("#transcript") == ""
        assert shown(page, "text").strip() == ""

    def test_options_are_sent_and_those_that_the_model_lacks_are_disabled(self, page):
        page.find("summary").click()
        page.find("#prompt").send_keys("Elinor's, and Marianne's")
        choose(page, AUSTEN)

        assert """-F 'prompt=Elinor'\\''s, and Marianne'\\''s'""" in page.text("#curl")
        assert not page.find("#language").is_enabled()
        assert page.text("#language-note") == "The model tiny.en knows English only."
        assert not page.find("#translate").is_enabled()
        assert page.text("#translate-note") == "The model tiny.en cannot translate."

    def test_address_fills_in_the_fields(self, chromium, keyed):
        chromium.open(keyed.url + "/playground?prompt=Elinor&response_format=vtt")
        chromium.until("document.querySelector('#prompt').value === 'Elinor'")

        assert chromium.find("#prompt").is_displayed()
        assert chromium.find("[data-choice=vtt]").get_dom_attribute("aria-selected") == "true"

    def test_sample_is_a_click_away(self, page):
        page.find("#sample").click()
        page.until(DONE)

        assert words(page.text("#transcript p")) == words(SENTENCE)
        assert page.complaints() == []

    def test_several_files_are_transcribed_one_after_another(self, page, short_file):
        choose(page, Path(f"{short_file}\n{AUSTEN}\n{BAD}"))
        assert page.text("#name") == short_file.name
        page.until("document.querySelector('#file-list .failed')")
        states = [item.text for item in page.find("#file-list").find_elements("tag name", "li")]
        assert states == [f"{short_file.name} done", f"{AUSTEN.name} done", f"{BAD.name} failed"]

        page.find("#file-list li:nth-child(2) button").click()

        page.until(f"document.querySelector('#name').textContent === '{AUSTEN.name}'")
        assert words(page.text("#transcript p")) == words(SENTENCE)
        assert words(page.text("#result")) == words(SENTENCE)
        assert page.violations() == []

    def test_playback_goes_to_a_time_and_the_page_follows_it(self, page, short_file):
        choose(page, short_file)
        page.resize(390, 500)
        line = page.find("#transcript li:nth-last-child(2) button")
        page.run("arguments[0].click(); scrollTo(0, 0)", line)
        page.until("document.querySelector('#play').textContent === 'Pause'")
        page.until("document.querySelector('.heard')?.getBoundingClientRect().bottom < innerHeight")

        player, heard = page.run(
            """const box = (name) => document.querySelector(name).getBoundingClientRect();
            return [box(".deck"), box(".heard")]"""
        )
        assert player["top"] >= 0, "the player stays in view"
        assert heard["top"] >= player["bottom"]
        assert page.text("#time").startswith(line.text[:3])
        page.find("#play").click()
        page.until("document.querySelector('#play').textContent === 'Play'")

    def test_speed_is_kept_for_the_next_recording(self, page):
        choose(page, AUSTEN)
        page.find("#speed").send_keys("2")
        choose(page, recording("goforward_16k.wav").path)
        page.until("/ 0:0[1-9]/.test(document.querySelector('#time').textContent)")
        page.run(
            """const play = HTMLMediaElement.prototype.play;
            HTMLMediaElement.prototype.play = function () {
              window.rate = this.playbackRate;
              return play.call(this);
            };"""
        )
        page.find("#play").click()
        page.until("document.querySelector('#play').textContent === 'Pause'")

        assert page.run("return rate") == 2

    def test_search_steps_through_the_places(self, page, short_file):
        choose(page, short_file)
        page.find("#search").send_keys("COLD-hearted and")
        page.until("document.querySelector('#matches').textContent.endsWith(' found')")
        count = int(page.text("#matches").split()[0])
        marked = page.run("return document.querySelectorAll('.match').length")

        page.find("#search").send_keys(Keys.ENTER, Keys.ENTER)

        assert count >= 2
        assert marked >= 2 * count, "every word of a place"
        assert page.text("#matches") == f"2 of {count}"
        assert page.violations() == []

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

    def test_refused_microphone_leaves_the_transcript(self, page):
        choose(page, AUSTEN)
        page.run(
            """navigator.mediaDevices.getUserMedia = async () => {
              throw new DOMException("", "NotAllowedError");
            };"""
        )
        page.find("#record").click()
        page.until(FAILED)

        assert page.text("#failure-text") == (
            "The browser does not let this page use the microphone."
        )
        assert words(page.text("#transcript p")) == words(SENTENCE)
        assert page.find("#results").is_displayed()
        assert page.find("#player").is_displayed()
        assert page.find("#record").is_enabled()

    def test_live_captions(self, page):
        """Words appear while the microphone hears them."""
        page.find("#live").click()
        page.until("document.querySelector('#captions').textContent.length > 30")
        page.find("#live").click()
        page.until("document.querySelector('#live-state').textContent === 'Stopped.'")

        heard = words(page.text("#captions"))
        assert len(set(heard) & set(words(SENTENCE))) >= 3, heard
        assert page.text("#live") == "Live captions"
        assert page.complaints() == []

    def test_live_captions_do_not_show_a_key_that_a_browser_cannot_send(self, page):
        page.find("#key").clear()
        page.find("#key").send_keys("a key=of mine")

        page.find("#live").click()
        page.until("document.querySelector('#live-state').textContent.includes('cannot send')")

        assert "mine" not in page.text("#live-card")
        assert page.complaints() == []

    def test_live_captions_that_are_stopped_twice_stop_at_once_and_start_again(self, page):
        state = "document.querySelector('#live-state').textContent"
        page.run("const live = document.querySelector('#live'); live.click(); live.click()")
        page.until(f"{state} === 'Stopped.'")

        page.find("#live").click()
        page.until(f"{state} === 'Listening.'")
        page.run("const live = document.querySelector('#live'); live.click(); live.click()")
        page.until(f"{state} === 'Stopped.'")

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

    def test_live_sessions_are_shown_with_the_delay_of_their_words(self, chromium, keyed):
        page = status(chromium, keyed)

        async def speak() -> None:
            bearer = {"Authorization": f"Bearer {KEY}"}
            async with LiveClient.session(keyed.url, bearer) as client:
                await client.append(recording("austen_0890.wav").waveform())
                await client.finish()
                await asyncio.to_thread(
                    page.until, "document.querySelector('#sessions').textContent === '1'"
                )

        asyncio.run(asyncio.wait_for(speak(), 60))

        page.until("document.querySelector('#delay-note').textContent.startsWith('95 % within ')")
        assert page.text("#sessions-note") == "1 of 1 gateway up"
        assert page.text("#delay").endswith("s")
        page.until("document.querySelector('#behind').textContent === '0 s'")

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


class TestDocs:
    def test_fields_are_in_the_lines_and_in_the_playground(self, chromium, keyed):
        chromium.open(keyed.url + "/docs")
        chromium.until(READ)
        chromium.find("#format").send_keys("srt")
        chromium.find("#prompt").send_keys("Elinor")

        lines = chromium.text("#lines")
        assert "-F response_format=srt -F prompt=Elinor" in lines
        assert 'prompt="Elinor"' in lines
        chromium.find("#playground").click()
        chromium.until("document.querySelector('#prompt')?.value === 'Elinor'")
        assert chromium.find("[data-choice=srt]").get_dom_attribute("aria-selected") == "true"

    def test_routes_are_tried_with_the_key_and_lines_are_copied(self, chromium, keyed):
        chromium.open(keyed.url + "/docs")
        chromium.run("sessionStorage.clear()")
        chromium.open(keyed.url + "/docs#v1-models")
        chromium.until(READ)
        chromium.until("document.querySelector('#v1-models').open")
        reply = "document.querySelector('#v1-models pre').textContent"
        chromium.find("#key").send_keys("käse€")  # which no header can hold
        chromium.find("#v1-models button").click()
        chromium.until(f"{reply}.startsWith('401')")
        chromium.find("#key").clear()
        chromium.find("#key").send_keys(KEY)

        chromium.find("#v1-models button").click()

        chromium.until(f"{reply}.startsWith('200')")
        assert "tiny.en" in chromium.text("#v1-models pre")
        chromium.find("#v1-realtime-client-secrets summary").click()
        chromium.find("#v1-realtime-client-secrets button").click()
        secret = "document.querySelector('#v1-realtime-client-secrets pre').textContent"
        chromium.until(f"/^200[^]*ek_/.test({secret})")
        chromium.find("#lines button").click()
        chromium.until("document.querySelector('#copied').textContent !== ''")
        assert chromium.text("#copied") == "Copied."
        assert KEY not in chromium.text("#lines") + " ".join(chromium.requested())
        assert chromium.complaints("status of 401") == []


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
        for each in ("file", "record", "key", "play", "speed", "search", "tab-text", "copy"):
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
