"""The load tests' arithmetic: figures of known answers, totals that must agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.measure.load import counters
from tests.measure.load.about import about
from tests.measure.load.counters import Counts, Target, Totals
from tests.measure.load.figures import Figures, Spread, efficiency, growth
from tests.measure.load.journal import Call, Caption, Journal, Writer
from tests.measure.load.modes import Aim, common, confirmed_search
from tests.measure.load.report import Report
from tests.measure.load.run import Load, Step, run
from tests.measure.load.soak import Series
from tests.measure.load.speaker import Speaker
from tests.support.cores import Cores, Seconds
from tests.support.known_server import Known

IDLE = Cores(0.0, 0.0, 0.0, None)


def call(began_s: float, elapsed_s: float, status: int = 200, **further: object) -> Call:
    return Call("window", began_s, elapsed_s, status, 4.0, **further)


def journal(*calls: Call, captions: tuple[Caption, ...] = (), seconds: float = 10.0) -> Journal:
    """A run whose users were all there from 100 s on."""
    return Journal(list(calls), list(captions), 100.0, 100.0 + seconds)


class TestFigures:
    def test_rate_is_of_wall_time(self):
        """Ten transcripts of 5 s each in 10 s are 1 a second: not one in 5 s, and not 10 in 50 s
        of waiting."""
        figures = Figures.of(journal(*(call(100 + n / 2, 5.0) for n in range(10))))

        assert figures.requests_per_s == 1.0
        assert figures.audio_s_per_s == 4.0
        assert figures.offered_per_s == 1.0
        assert figures.wall_s == 10.0

    def test_answers_after_the_end_are_counted_and_make_no_rate(self):
        figures = Figures.of(journal(call(101, 2), call(105, 2), call(109, 2)))

        assert figures.requests_per_s == 0.2
        assert figures.counts["ok"] == 3
        assert figures.success_s.count == 3

    def test_refusals_stand_apart(self):
        """However many there are, and however quick: waiting for a transcript is not shorter."""
        good = [call(100 + n, 2.0) for n in range(4)]
        refused = [call(100 + n / 10, 0.001, 503) for n in range(96)]

        figures = Figures.of(journal(*good, *refused))

        assert figures.success_s == Spread(4, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
        assert figures.refusal_s.max == 0.001
        assert figures.rtf.mean == 0.5
        assert figures.rates == {"ok": 0.04, "refused": 0.96, "left": 0.0, "error": 0.0}
        assert figures.requests_per_s == 0.4
        assert figures.offered_per_s == 10.0

    def test_spread(self):
        spread = Spread.of([float(n) for n in range(1, 102)])

        assert (spread.min, spread.mean, spread.p50, spread.max) == (1, 51, 51, 101)
        assert (spread.p95, spread.p99) == (96, 100)
        assert Spread.of([]).p95 is None

    def test_every_request_has_one_outcome(self):
        calls = [
            call(101, 1),
            call(101, 1, 503),
            call(101, 1, 429),
            call(101, 1, 500),
            call(101, 1, 0, note="ConnectionResetError"),
            call(101, 30, 0, left=True, note="patience"),
            call(101, 1, 200, note="no JSON"),
        ]

        figures = Figures.of(journal(*calls))

        assert figures.counts == {"ok": 1, "refused": 2, "left": 1, "error": 3}
        assert figures.statuses == {"0": 2, "200": 2, "429": 1, "500": 1, "503": 1}

    def test_speech_to_text(self):
        """What was said at the window's beginning waits longer than what was said at its end."""
        captions = (
            Caption(100, 102, 103.0, 1),
            Caption(102, 104, 107.0, 2),
            Caption(104, 106, None, 4, dropped_s=2.0),
        )

        found = Figures.of(journal(call(100, 1), captions=captions)).captions

        assert (found.windows, found.lost, found.retried, found.dropped_s) == (3, 1, 2, 2.0)
        assert found.lost_share == pytest.approx(1 / 3)
        assert found.speech_s == 4.0
        assert found.speech_to_text_s.min == pytest.approx(1.125)
        assert found.speech_to_text_s.max == pytest.approx(4.875)
        assert found.speech_to_text_s.mean == pytest.approx((2.0 + 4.0) / 2)

    def test_efficiency(self):
        assert efficiency({1: 2.0, 2: 3.0, 4: 8.0}) == {1: 1.0, 2: 0.75, 4: 1.0}
        assert efficiency({2: 4.0, 4: 4.0}) == {2: 1.0, 4: 0.5}

    def test_growth_after_the_warm_up(self):
        assert growth([*range(20), *([50] * 80)]) == 0
        assert growth([float(n) for n in range(100)]) == pytest.approx(64)
        assert growth([1.0]) == 0


class TestTotals:
    CALLS = (call(1, 1), call(2, 1), call(3, 1, 503))

    @staticmethod
    def counted(requests: int, ok: int, refused: int) -> Counts:
        classes = {"2xx": ok, "5xx": refused}
        name = "haproxy_frontend_http_responses_total"
        balancer = {
            (name, (("code", code), ("proxy", "api"))): float(n) for code, n in classes.items()
        }
        balancer[("haproxy_frontend_http_requests_total", (("proxy", "api"),))] = float(requests)
        balancer[("haproxy_frontend_http_requests_total", (("proxy", "stats"),))] = 99.0
        return Counts(balancer, {}, {})

    def test_agree(self):
        assert Totals.of(list(self.CALLS), self.counted(3, 2, 1)).mismatch == ""

    @pytest.mark.parametrize("counts", [(4, 2, 1), (2, 2, 1), (3, 3, 0), (3, 1, 2), (4, 2, 2)])
    def test_every_difference_is_told(self, counts):
        assert "HAProxy" in Totals.of(list(self.CALLS), self.counted(*counts)).mismatch

    def test_request_that_nobody_waited_for_may_count_as_anything(self):
        calls = [*self.CALLS, call(4, 30, 0, left=True)]

        for counts in [(4, 2, 1), (4, 3, 1), (4, 2, 2), (3, 2, 1)]:
            assert Totals.of(calls, self.counted(*counts)).mismatch == ""
        assert Totals.of(calls, self.counted(4, 4, 0)).mismatch
        assert Totals.of(calls, self.counted(5, 2, 2)).mismatch

    def test_histograms(self):
        text = {
            ("b_bucket", (("kind", "generate"), ("le", "1"))): 3.0,
            ("b_bucket", (("kind", "generate"), ("le", "2"))): 3.0,
            ("b_bucket", (("kind", "generate"), ("le", "4"))): 5.0,
            ("b_sum", (("kind", "generate"),)): 11.0,
            ("b_count", (("kind", "generate"),)): 5.0,
        }

        assert counters.buckets(text, "b", kind="generate") == {"1": 3, "4": 2}
        assert counters.mean(text, "b", kind="generate") == 2.2
        assert counters.mean(text, "b", kind="encode") is None


class TestSpeaker:
    @staticmethod
    def answer(*words: str) -> dict[str, object]:
        return {
            "language": "en",
            "words": [{"word": word, "end": n + 1.0} for n, word in enumerate(words)],
        }

    def test_window_grows_until_two_answers_agree(self):
        speaker = Speaker()
        first = speaker.window(2.0)
        speaker.hear(self.answer("Good", "morning"), first)
        second = speaker.window(4.0)
        speaker.hear(self.answer("good", "morning,", "all", "of"), second)

        assert (first.seconds, second.seconds) == (2.0, 4.0)
        assert speaker.prompt == "good morning,"
        assert speaker.confirmed_s == 2.0
        assert speaker.window(6.0).begin_s == 2.0

    def test_cut_word_is_not_confirmed(self):
        speaker = Speaker()
        for _ in range(2):
            speaker.hear(self.answer("Good", "mor"), speaker.window(2.0))

        assert speaker.prompt == "Good"

    def test_silence_moves_on(self):
        speaker = Speaker()
        speaker.hear({"words": []}, speaker.window(2.0))

        assert speaker.window(4.0).begin_s == 1.0

    def test_window_is_never_longer_than_30_s(self):
        speaker = Speaker()
        speaker.hear(self.answer("Good", "morning"), speaker.window(2.0))
        window = speaker.window(40.0)

        assert window.seconds == 30.0
        assert window.dropped_s == 8.0  # the first 2 s had a text
        assert speaker.shown_s == 10.0


@pytest.mark.parametrize("most", [0, 1, 2, 3, 7, 8, 33, 100])
@pytest.mark.parametrize("start", [1, 2, 5])
def test_search_finds_the_most(most, start):
    search = confirmed_search(start)
    trial, tried, found = next(search), [], -1
    while found < 0:
        tried.append(trial)
        try:
            trial = search.send(trial[0] <= most)
        except StopIteration as end:
            found = end.value

    assert most - max(1, most // 20) < found <= most or found == most
    assert found == 0 or tried[-1] == (found, 2)
    assert len(tried) <= 15


def test_number_that_does_not_last_is_lowered():
    """It kept the promise in a short run and not in the long one."""
    search = confirmed_search(4)
    answers = {(4, 1): True, (8, 1): False, (6, 1): True, (7, 1): False, (6, 2): False}
    trial, found = next(search), -1
    while found < 0:
        try:
            trial = search.send(answers.get(trial, True))
        except StopIteration as end:
            found = end.value

    assert found == 5


def test_aim():
    def step(text_s: float | None) -> Step:
        captions = tuple(Caption(100 + n, 101 + n, text_s and text_s + n, 1) for n in range(50))
        figures = Figures.of(journal(call(100, 1), captions=captions))
        return Step("x", "service", 1, Load(1, 1), figures, None, {}, IDLE, None, journal())

    assert Aim().met(step(104.0))
    assert not Aim().met(step(107.0))
    assert not Aim().met(step(None))


def test_cores_that_others_used_are_told():
    before, after = Seconds(10.0, 5.0, 1.0), Seconds(25.0, 13.0, 2.0)

    cores = Cores.between(before, after, 10.0, local=True)

    assert cores == Cores(1.5, 0.8, 0.1, pytest.approx(0.6))
    assert cores.doubt == "other programs used 0.6 cores meanwhile"
    assert Cores.between(before, after, 10.0, local=False).doubt == ""


def test_growth_of_a_process_is_told():
    seconds = [12.0 * n for n in range(100)]
    steady = Series("w", seconds, [3e8] * 100, [20] * 100, [30] * 100)
    settling = Series("w", seconds, [1e8] * 9 + [3e8] * 91, [5] * 9 + [20] * 91, [30] * 100)
    leaking = Series("w", seconds, [3e8 + 2e6 * n for n in range(100)], [20] * 100,
                     [30 + n // 2 for n in range(100)])  # fmt: skip
    short = Series("w", [n / 10 for n in range(100)], leaking.rss_bytes, [20] * 100, [30] * 100)

    assert steady.troubles() == settling.troubles() == short.troubles() == []
    assert [one.split(" grew")[0] for one in leaking.troubles()] == [
        "w: memory, MiB", "w: descriptors",
    ]  # fmt: skip


class TestAgainstKnownServer:
    """Locust's real users on loopback; the server counts for itself."""

    def test_windows(self, tmp_path):
        with Known(answer_s=0.1, slots=2).serving() as known:
            target = Target("known", known.url, known.url)
            step = run(target, Load(3, 2.0, options=("--window-seconds", "2")), tmp_path, "windows")

        figures = step.figures
        assert step.mismatch == ""
        assert step.totals.sent == known.requests == sum(figures.counts.values())
        assert figures.counts["ok"] == known.statuses[200] == len(known.audio_s) > 1
        assert figures.counts["refused"] == known.statuses[503] > 0
        assert set(known.audio_s) == {2.0}
        # By the server's own clock: what began and ended while all users were there.
        started, stopped = step.journal.started_s, step.journal.stopped_s
        ended = [at for at in known.arrived_s if started <= at <= stopped]
        assert figures.offered_per_s * figures.wall_s == pytest.approx(len(ended), abs=2)
        assert figures.success_s.min >= 0.1
        assert figures.requests_per_s <= 2 / 0.1

    def test_false_total_is_an_error(self, tmp_path):
        """A counter that is one too high on the second reading, and nothing else wrong."""
        with Known().serving() as known:
            target = Target("known", known.url, known.url)
            before = Counts.of(target)
            step = run(target, Load(1, 1.0, options=("--window-seconds", "2")), tmp_path, "lie")
            known.lie = 1
            after = Counts.of(target)

        totals = Totals.of(step.journal.calls, after.since(before))
        assert totals.mismatch == (
            f"requests: clients {known.requests}, HAProxy {known.requests + 1}"
        )

    def test_meeting(self, tmp_path):
        """Windows grow by what is said, confirmed text comes as the prompt, refusals are tried
        again after 1 and 2 s."""
        with Known(answer_s=0.05, refuse=2).serving() as known:
            target = Target("known", known.url, known.url)
            step = run(target, Load(1, 11.0, ("Meeting",)), tmp_path, "meeting")

        captions = step.journal.captions
        assert step.mismatch == ""
        assert captions[0].attempts == 3
        pauses = [b - a for a, b in zip(known.arrived_s[:2], known.arrived_s[1:3], strict=True)]
        assert pauses == [pytest.approx(1.0, abs=0.5), pytest.approx(2.0, abs=0.5)]
        assert step.figures.captions.lost == 0
        assert known.audio_s[0] == 2.0
        assert known.audio_s[1] > 3.9  # nothing confirmed, and at least 2 s more
        assert known.prompts
        assert known.prompts[0].startswith("one two")

    def test_window_is_lost_after_four_attempts(self, tmp_path):
        with Known(refuse=4).serving() as known:
            target = Target("known", known.url, known.url)
            step = run(target, Load(1, 3.0, ("Meeting",)), tmp_path, "lost")

        assert known.requests == 4
        assert step.figures.captions.lost == 1
        assert step.figures.counts["refused"] == 4


def test_report_needs_nobody_else(tmp_path):
    """One page and one JSON; the page names no other host, and a difference is in both."""
    calls = [call(100 + n / 2, 1.0 + n / 10) for n in range(10)] + [call(101, 0.01, 503)]
    log = journal(*calls)
    inside = counters.inside(Counts({}, {}, {}), 10.0) | {"device_busy_share": None}
    good = Totals(11, 11, 10, 10, 1, 1, 0, "")
    bad = Totals(11, 12, 10, 10, 1, 2, 0, "requests: clients 11, HAProxy 12")
    steps = [
        Step(name, "service", 1, Load(3, 10.0), Figures.of(log), totals, inside, IDLE, 0.5, log)
        for name, totals in (("first <run>", good), ("second", bad))
    ]
    report = Report("single", about({"API_TOKEN": "secret"}), steps, {"most": 1.0})
    report.pictures = common(steps, steps[0])

    page = report.write(tmp_path).read_text()
    told = (tmp_path / "single.json").read_text()

    assert not re.search(r"https?://|//[a-z]", re.sub(r'src="data:[^"]*"', "", page))
    assert "data:image/png;base64," in page
    assert "first &lt;run&gt;" in page
    assert "requests: clients 11, HAProxy 12" in page
    assert "requests: clients 11, HAProxy 12" in told
    assert "secret" not in page + told
    assert report.troubles


def test_journal_is_what_was_written(tmp_path):
    path = Path(tmp_path / "a" / "journal.jsonl")
    writer = Writer(path)
    writer.started(100.0)
    writer.call(call(101, 2, 503, note="server_busy"))
    writer.caption(Caption(100, 102, None, 4))
    writer.stopped(110.0)
    writer.close()

    found = Journal.read(path)

    assert found.calls == [call(101, 2, 503, note="server_busy")]
    assert found.captions == [Caption(100, 102, None, 4)]
    assert found.offered_s == 10.0
