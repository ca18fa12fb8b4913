"""What this machine carries with this model, and the settings that follow from it."""

from __future__ import annotations

import math

from tests.measure.load import plots, side
from tests.measure.load.modes import GAIN, Aim, Session, common, most_meetings
from tests.measure.load.report import Report
from tests.measure.load.run import Load, Step

PATIENCE_S = 30.0  # a bot's
LONGEST_QUEUE_S = 20.0
BATCHES = (4, 8, 16, 32)


def capacity(session: Session, aim: Aim, start: int) -> Report:
    """Measure numbers of workers, then of slots (on a GPU: batch sizes), then meetings."""
    best, chosen = best_of(session, [{"WORKERS": str(n)} for n in worker_counts()])
    if session.service.get("device") == "cuda":
        sizes = [
            chosen | {"MAX_BATCH_SIZE": str(n), "MAX_CONCURRENT_TRANSCRIPTIONS": str(2 * n)}
            for n in BATCHES
        ]
    else:
        own = side.slots(chosen) // int(chosen["WORKERS"])
        sizes = [
            chosen | {"MAX_CONCURRENT_TRANSCRIPTIONS": str(n)} for n in (max(1, own // 2), 2 * own)
        ]
    better, wider = best_of(session, sizes)
    if better.figures.requests_per_s > GAIN * best.figures.requests_per_s:
        best, chosen = better, wider
    with session.started("service", **chosen) as target:
        (carried,) = most_meetings(session, [target], aim, start)
    config = side.config_of(side.chosen() | chosen)
    report = session.report("capacity")
    report.summary = {
        "transcripts/s at most (windows of 2 to 30 s)": best.figures.requests_per_s,
        "audio seconds/s": best.figures.audio_s_per_s,
        f"meetings (text within {aim.p95_s:g} s, at most {aim.lost:.0%} lost)": carried,
        "WORKERS": config.workers,
        "MAX_CONCURRENT_TRANSCRIPTIONS": config.slots,
        "MAX_BATCH_SIZE": config.max_batch_size,
        "QUEUE_TIMEOUT_S": queue_deadline_s(best),
        "note": "These give the most transcripts; one worker more goes on serving when one dies.",
    }
    report.pictures = common(session.steps, best) | {
        "Meetings": plots.curve(
            [step for step in session.steps if step.figures.captions], "meetings",
            {"speech to text p95, s": lambda one: one.figures.captions.speech_to_text_s.p95},
        )
    }  # fmt: skip
    return report


def worker_counts() -> list[int]:
    """Numbers of workers worth trying: on a GPU one to three share it, on a CPU as many as there
    are cores, and the default, which survives the death of two."""
    config = side.config_of(side.chosen())
    return sorted({1, min(config.cores * config.workers, 4), 3})


def best_of(session: Session, choices: list[dict[str, str]]) -> tuple[Step, dict[str, str]]:
    """The choice with the most transcripts, every slot taken; of equals the first."""
    best: tuple[Step, dict[str, str]] | None = None
    for own in choices:
        name = " ".join(f"{key}={value}" for key, value in own.items())
        with session.started("service", **own) as target:
            step = session.measure(target, Load(side.slots(own), session.seconds), name)
        if best is None or step.figures.requests_per_s > (GAIN * best[0].figures.requests_per_s):
            best = step, own
    assert best is not None
    return best


def queue_deadline_s(step: Step) -> int:
    """Return how long a request may wait and still be answered before its client gives up.

    A client's patience less what an answer takes when every slot is taken (99 of 100).
    """
    took_s = step.figures.success_s.p99 or 0.0
    return int(max(1, min(LONGEST_QUEUE_S, math.floor(PATIENCE_S - took_s))))
