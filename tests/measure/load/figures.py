"""From what users did to figures: pure arithmetic, the same for every mode.

Nothing is divided by anything but wall time: a rate counts the answers that arrived while all
users were there, and divides by how long that was. Waiting times of successes and of refusals
never meet in one figure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.measure.load.journal import OUTCOMES, Call, Caption, Journal

GRAIN_S = 0.25  # speech is looked at in pieces of this length


@dataclass(frozen=True, slots=True)
class Spread:
    """How a quantity was distributed; all None where there is nothing to tell."""

    count: int
    min: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Spread:
        """That of these values; percentiles are interpolated between neighbours."""
        if not len(values):
            return cls(0, None, None, None, None, None, None)
        p50, p95, p99 = (float(np.percentile(values, share)) for share in (50, 95, 99))
        return cls(
            len(values), float(np.min(values)), float(np.mean(values)), p50, p95, p99,
            float(np.max(values)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What clients saw of one run.

    Args:
        wall_s: how long all users were there.
        counts: all requests, by outcome: ok, refused, left, error.
        statuses: all requests, by the status of their answer; 0: none.
        offered_per_s: requests that began in that time, for each of its seconds.
        requests_per_s: transcripts that arrived in that time, for each of its seconds.
        audio_s_per_s: seconds of audio in them, for each of its seconds.
        success_s: how long transcripts took.
        refusal_s: how long refusals took.
        rtf: waiting for each second of audio, over the transcripts.
        rates: the share of each outcome in all requests.
        captions: windows of meetings; None where there was no meeting.
    """

    wall_s: float
    counts: dict[str, int]
    statuses: dict[str, int]
    offered_per_s: float
    requests_per_s: float
    audio_s_per_s: float
    success_s: Spread
    refusal_s: Spread
    rtf: Spread
    rates: dict[str, float]
    captions: CaptionFigures | None

    @classmethod
    def of(cls, journal: Journal) -> Figures:
        """Those of a finished run."""
        wall_s = journal.offered_s
        counts = Counter(call.outcome for call in journal.calls)
        good = [call for call in journal.calls if call.outcome == "ok"]
        inside = [call for call in good if within(call.ended_s, journal)]
        began = sum(within(call.began_s, journal) for call in journal.calls)
        return cls(
            wall_s=wall_s,
            counts={outcome: counts[outcome] for outcome in OUTCOMES},
            statuses=by_status(journal.calls),
            offered_per_s=began / wall_s,
            requests_per_s=len(inside) / wall_s,
            audio_s_per_s=sum(call.audio_s for call in inside) / wall_s,
            success_s=Spread.of([call.elapsed_s for call in good]),
            refusal_s=Spread.of(
                [call.elapsed_s for call in journal.calls if call.outcome == "refused"]
            ),
            rtf=Spread.of([call.elapsed_s / call.audio_s for call in good if call.audio_s]),
            rates={outcome: counts[outcome] / max(1, len(journal.calls)) for outcome in OUTCOMES},
            captions=CaptionFigures.of(journal.captions) if journal.captions else None,
        )


@dataclass(frozen=True, slots=True)
class CaptionFigures:
    """What the people of meetings saw.

    Args:
        windows: how many were sent, however often each.
        lost: how many never had a text.
        lost_share: the same, as a share.
        retried: how many were sent more than once.
        speech_s: seconds of speech whose text came.
        dropped_s: seconds of speech that no window had any more.
        speech_to_text_s: from saying something to its text, over every moment of the speech
            whose text came; the 2 s between windows are in it.
    """

    windows: int
    lost: int
    lost_share: float
    retried: int
    speech_s: float
    dropped_s: float
    speech_to_text_s: Spread

    @classmethod
    def of(cls, captions: Sequence[Caption]) -> CaptionFigures:
        lost = sum(caption.text_s is None for caption in captions)
        shown = [caption for caption in captions if caption.text_s is not None]
        return cls(
            windows=len(captions),
            lost=lost,
            lost_share=lost / len(captions),
            retried=sum(caption.attempts > 1 for caption in captions),
            speech_s=sum(caption.said_to_s - caption.said_from_s for caption in shown),
            dropped_s=sum(caption.dropped_s for caption in captions),
            speech_to_text_s=Spread.of(speech_to_text(shown)),
        )


def speech_to_text(captions: Iterable[Caption]) -> np.ndarray:
    """Return how long each piece of speech waited for its text, seconds; shape (n_pieces,)."""
    waits = [np.zeros(0)]
    for caption in captions:
        assert caption.text_s is not None
        pieces = max(1, math.ceil((caption.said_to_s - caption.said_from_s) / GRAIN_S))
        edges = np.linspace(caption.said_from_s, caption.said_to_s, pieces + 1)
        waits.append(caption.text_s - (edges[1:] + edges[:-1]) / 2)
    return np.concatenate(waits)


def within(at_s: float, journal: Journal) -> bool:
    """Return whether something happened while all users were there."""
    assert journal.started_s is not None
    assert journal.stopped_s is not None
    return journal.started_s <= at_s <= journal.stopped_s


def by_status(calls: Iterable[Call]) -> dict[str, int]:
    """Return how often each status came, the smallest first."""
    counts = Counter(call.status for call in calls)
    return {str(status): counts[status] for status in sorted(counts)}


def efficiency(rates: dict[int, float]) -> dict[int, float]:
    """Return how much of n times the smallest number's rate per worker n workers reach.

    Args:
        rates: requests a second, by the number of workers.
    """
    least = min(rates)
    each = rates[least] / least
    return {n: rate / (n * each) if each else 0.0 for n, rate in sorted(rates.items())}


def growth(values: Sequence[float], warm_up: float = 0.2, edge: float = 0.2) -> float:
    """How much a quantity grew after its warm-up: the median of the last part less the first's.

    Args:
        values: taken at equal distances in time.
        warm_up: the share at the beginning that does not count.
        edge: the share of the rest that makes each of the two parts.
    """
    rest = np.asarray(values[int(len(values) * warm_up) :], dtype=float)
    part = max(1, int(rest.size * edge))
    if rest.size < 2 * part:
        return 0.0
    return float(np.median(rest[-part:]) - np.median(rest[:part]))
