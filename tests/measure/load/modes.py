"""The load test's modes: which services are started, which users come, what is concluded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.measure.load import about, plots, side
from tests.measure.load.counters import Target
from tests.measure.load.figures import efficiency
from tests.measure.load.report import Report
from tests.measure.load.run import Load, Step, run

GAIN = 1.03  # another step of users must bring so much, or the maximum is reached
MOST_STEPS = 12
MOST_MEETINGS = 2048
SPARE_S = 8.0  # how long the paced users of an overload wait for an answer without falling behind


@dataclass(frozen=True)
class Aim:
    """What a meeting must have, or the machine carries too many.

    Args:
        p95_s: 95 % of the speech has its text within so many seconds of being said.
        lost: the share of windows that may be lost.
    """

    p95_s: float = 5.0
    lost: float = 0.01

    def met(self, step: Step) -> bool:
        """Return whether a run of meetings kept it."""
        found = step.figures.captions
        if found is None or found.speech_to_text_s.p95 is None:
            return False
        return found.speech_to_text_s.p95 <= self.p95_s and found.lost_share <= self.lost


@dataclass
class Session:
    """One call of a mode: where files go, what runs already, what was measured so far.

    Args:
        folder: of reports and journals.
        seconds: of each run.
        running: a service that runs already; None: each mode starts its own.
    """

    folder: Path
    seconds: float
    running: Target | None = None
    steps: list[Step] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    service: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def started(self, name: str, **own: str) -> Iterator[Target]:
        """A service to measure."""
        if self.running is not None:
            self.service = about.service(self.running.url)
            yield self.running
            return
        with side.started(name, self.folder / "run", **own) as (target, settings):
            if name == "service" or not self.settings:
                self.settings = settings
                self.service = about.service(target.url)
            yield target

    def measure(self, target: Target, load: Load, name: str) -> Step:
        """One run, told in a line."""
        step = run(target, load, self.folder, name)
        self.steps.append(step)
        print(told(step), flush=True)
        return step

    def report(self, mode: str) -> Report:
        """A report with what was measured, without findings."""
        head = about.about(self.settings) | {"service": self.service}
        return Report(mode, head, self.steps)


def told(step: Step) -> str:
    """A run in a line."""
    one = step.figures
    waits = one.success_s
    line = (
        f"{step.name}: {one.requests_per_s:.2f} transcripts/s of {one.offered_per_s:.2f} offered, "
        f"{one.audio_s_per_s:.1f} audio s/s; {one.counts['ok']} ok"
    )
    if waits.p50 is not None:
        line += f" (p50 {waits.p50:.2f}, p95 {waits.p95:.2f}, max {waits.max:.2f} s)"
    line += "".join(
        f", {one.counts[outcome]} {outcome}"
        for outcome in ("refused", "left", "error")
        if one.counts[outcome]
    )
    if one.captions is not None and one.captions.speech_to_text_s.p95 is not None:
        line += (
            f"; speech to text p95 {one.captions.speech_to_text_s.p95:.2f} s, "
            f"{one.captions.lost} of {one.captions.windows} windows lost"
        )
    if step.totals:
        line += f"; totals: {step.mismatch or 'as HAProxy counted'}"
    if step.cores.doubt:
        line += f"; {step.cores.doubt}"
    return line


def saturate(session: Session, target: Target, users: Sequence[int], name: str) -> Step:
    """More and more users until that brings nothing; the run with the most transcripts."""
    best: Step | None = None
    without_gain = 0
    for n in users:
        step = session.measure(target, Load(n, session.seconds), f"{name} {n} users")
        if best is None or step.figures.requests_per_s > GAIN * best.figures.requests_per_s:
            best, without_gain = step, 0
        else:
            without_gain += 1
        if without_gain == 2:
            break
    assert best is not None
    return best


def single(session: Session) -> Report:
    """The most one worker can do."""
    with session.started("service", WORKERS="1") as target:
        best = saturate(session, target, [1 << n for n in range(MOST_STEPS)], "one worker,")
    report = session.report("single")
    report.summary = {
        "transcripts/s at most": best.figures.requests_per_s,
        "audio seconds/s": best.figures.audio_s_per_s,
        "with users": best.load.users,
        "p95 there, s": best.figures.success_s.p95,
        "device busy share": best.inside["device_busy_share"],
    }
    report.pictures = common(session.steps, best) | {
        "More users": plots.curve(session.steps, "users", {
            "transcripts/s": lambda one: one.figures.requests_per_s,
            "p95, s": lambda one: one.figures.success_s.p95,
        })
    }  # fmt: skip
    return report


def scaling(session: Session, workers: Sequence[int]) -> Report:
    """1 to N workers, each number with every slot taken."""
    rates: dict[int, float] = {}
    for n in workers:
        own = {"WORKERS": str(n)}
        with session.started("service", **own) as target:
            load = Load(side.slots(own), session.seconds)
            rates[n] = session.measure(target, load, f"{n} workers").figures.requests_per_s
    report = session.report("scaling")
    shares = efficiency(rates)
    report.summary = {
        **{f"{n} workers: transcripts/s": rate for n, rate in rates.items()},
        **{f"{n} workers: scaling efficiency": share for n, share in shares.items()},
        "note": "On one machine's cores one worker already has all of them; workers add there "
        "what survives the death of one. Efficiency tells of GPUs.",
    }
    report.pictures = common(session.steps, session.steps[-1]) | {
        "More workers": plots.curve(session.steps, "workers", {
            "transcripts/s": lambda one: one.figures.requests_per_s,
            "efficiency": lambda one: shares.get(one.workers),
        })
    }  # fmt: skip
    return report


def overload(session: Session, times: float = 2.0) -> Report:
    """Requests at a steady rate beyond what the service can do."""
    with session.started("service") as target:
        users = side.slots(session.settings) if session.running is None else 8
        can = session.measure(target, Load(users, session.seconds), "capacity")
        rate = times * can.figures.requests_per_s
        n = max(2, math.ceil(rate * SPARE_S))
        load = Load(n, session.seconds, options=("--pace", f"{n / rate:.4f}"))
        over = session.measure(target, load, f"{times:g} times the capacity")
    report = session.report("overload")
    report.summary = {
        "capacity, transcripts/s": can.figures.requests_per_s,
        "offered/s": over.figures.offered_per_s,
        "transcripts/s": over.figures.requests_per_s,
        "share of the capacity": over.figures.requests_per_s / can.figures.requests_per_s,
        "success p50, p95, p99 s": [
            over.figures.success_s.p50, over.figures.success_s.p95, over.figures.success_s.p99,
        ],
        "refusal p50, p95, p99 s": [
            over.figures.refusal_s.p50, over.figures.refusal_s.p95, over.figures.refusal_s.p99,
        ],
        "success, refusal, error rates": [
            over.figures.rates["ok"], over.figures.rates["refused"],
            over.figures.rates["error"] + over.figures.rates["left"],
        ],
    }  # fmt: skip
    report.pictures = common(session.steps, over)
    return report


def meetings(session: Session, sides: Sequence[str], aim: Aim, start: int) -> Report:
    """The most meetings that each side carries within the aim."""
    with ExitStack() as running:
        targets = [running.enter_context(session.started(name)) for name in sides]
        most = dict(zip(sides, most_meetings(session, targets, aim, start), strict=True))
    report = session.report("meetings")
    report.summary = {
        "aim": f"95 % of the speech has its text within {aim.p95_s:g} s, at most "
        f"{aim.lost:.0%} of the windows lost",
        **{f"{name}: meetings": n for name, n in most.items()},
        **{
            f"{name}: CPU seconds for each second of speech": share
            for name in sides
            if (share := cpu_share(session.steps, name, aim)) is not None
        },
    }
    longest = max(session.steps, key=lambda step: step.load.seconds)
    report.pictures = common(session.steps, longest) | {
        "More meetings": plots.curve(session.steps, "meetings", {
            "speech to text p95, s": lambda one: one.figures.captions
            and one.figures.captions.speech_to_text_s.p95,
            "windows lost": lambda one: one.figures.captions
            and one.figures.captions.lost_share,
        })
    }  # fmt: skip
    return report


def cpu_share(steps: Sequence[Step], name: str, aim: Aim) -> float | None:
    """Return what a side spends on each second of a meeting, where it kept up with all of them.

    The median of its runs; it hardly depends on what else the machine does. None: not known.
    """
    shares = [
        step.cpu_s * step.figures.counts["ok"] / (step.load.users * step.load.seconds)
        for step in steps
        if step.target == name and step.cpu_s and aim.met(step)
    ]
    return statistics.median(shares) if shares else None


def most_meetings(session: Session, targets: Sequence[Target], aim: Aim, start: int) -> list[int]:
    """The most meetings of each service: doubled until the aim is missed, narrowed down, and
    confirmed by a run of twice the length; 0: not even one.

    The services take turns, run by run, so that a change of the machine's speed meets all of them.
    """
    searches = [confirmed_search(start) for _ in targets]
    trials = [next(search) for search in searches]
    most: dict[int, int] = {}
    while len(most) < len(targets):
        for place, (target, search) in enumerate(zip(targets, searches, strict=True)):
            if place in most:
                continue
            n, times = trials[place]
            name = f"{target.name}, {n} meetings" + (", confirmed" if times > 1 else "")
            load = Load(n, times * session.seconds, ("Meeting",))
            try:
                trials[place] = search.send(aim.met(session.measure(target, load, name)))
            except StopIteration as end:
                most[place] = end.value
                print(f"{target.name}: {end.value} meetings", flush=True)
    return [most[place] for place in range(len(targets))]


Trial = tuple[int, int]  # how many meetings, and how many times the usual length


def confirmed_search(start: int) -> Generator[Trial, bool, int]:
    """What to try next, given whether the last trial kept the promise; returns the most that kept
    it, in a run of twice the length too."""
    found = yield from search(start)
    while found and not (yield found, 2):
        found -= max(1, found // 10)
    return found


def search(start: int) -> Generator[Trial, bool, int]:
    """The largest number that keeps a promise, given that larger ones keep it less; 0: none.

    Numbers are told apart to one part in twenty.
    """
    good, bad = 0, None
    n = start
    while (bad is None and n <= MOST_MEETINGS) or (
        bad is not None and bad - good > max(1, good // 20)
    ):
        if (yield n, 1):
            good = n
        else:
            bad = n
        n = 2 * good if bad is None else (good + bad) // 2
    return good


def common(steps: Sequence[Step], chosen: Step) -> dict[str, str]:
    """Pictures that every report has."""
    return {
        f"Over time: {chosen.name}": plots.over_time(chosen.journal),
        "Waiting for a transcript": plots.waits(steps),
        "Batches": plots.batches(steps),
    }
