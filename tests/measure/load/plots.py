"""The report's pictures, as data URIs: the page needs no other host and no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from tests.measure.load.journal import Journal
from tests.measure.load.run import Step

matplotlib.use("Agg")
COLOURS = {"ok": "#2a7", "refused": "#e90", "left": "#a3a", "error": "#c22"}


def over_time(journal: Journal) -> str:
    """Answers of each kind in each second, and how long each transcript took."""
    figure, (rate, wait) = subplots(2)
    began = min(call.began_s for call in journal.calls)
    last = max(call.ended_s for call in journal.calls) - began
    step = max(1.0, round(last / 120))
    edges = np.arange(0.0, last + step, step)
    for outcome, colour in COLOURS.items():
        ended = [call.ended_s - began for call in journal.calls if call.outcome == outcome]
        if ended:
            counts, _ = np.histogram(ended, edges)
            rate.step(edges[:-1], counts / step, where="post", color=colour, label=outcome)
            waits = [call.elapsed_s for call in journal.calls if call.outcome == outcome]
            wait.scatter(ended, waits, s=7, color=colour, label=outcome)
    rate.set(xlabel="seconds", ylabel=f"answers/s (over {step:g} s)", ylim=(0, None))
    wait.set(xlabel="seconds", ylabel="waiting, s", ylim=(0, None))
    rate.legend()
    return uri(figure)


def waits(steps: Sequence[Step]) -> str:
    """The share of transcripts that took no longer than so many seconds."""
    figure, (axis,) = subplots(1)
    for step in steps:
        values = sorted(call.elapsed_s for call in step.journal.calls if call.outcome == "ok")
        if values:
            axis.step(values, np.arange(1, len(values) + 1) / len(values), label=step.name)
    axis.set(xlabel="seconds from request to transcript", ylabel="share", ylim=(0, 1))
    axis.legend(fontsize="small")
    return uri(figure)


def batches(steps: Sequence[Step]) -> str:
    """Return how many windows shared a call on the device."""
    figure, (axis,) = subplots(1)
    for step in steps:
        sizes = step.inside["batch_sizes"]["generate"]
        if sizes:
            axis.plot(list(sizes), list(sizes.values()), marker="o", label=step.name)
    axis.set(xlabel="windows in a decoding call, up to", ylabel="calls")
    if axis.lines:
        axis.legend(fontsize="small")
    return uri(figure)


def curve(steps: Sequence[Step], x: str, lines: dict[str, Any]) -> str:
    """Figures of steps over what was changed from step to step.

    Args:
        x: the axis' name; its values are the steps' users, or their workers.
        lines: label -> a function of a step.
    """
    figure, axes = subplots(len(lines))
    for axis, (label, of) in zip(axes, lines.items(), strict=True):
        for target in dict.fromkeys(step.target for step in steps):
            own = sorted(
                (step.workers if x == "workers" else step.load.users, of(step))
                for step in steps
                if step.target == target and of(step) is not None
            )
            axis.plot([n for n, _ in own], [y for _, y in own], marker="o", label=target)
        axis.set(xlabel=x, ylabel=label, ylim=(0, None))
        axis.legend(fontsize="small")
    return uri(figure)


def growth(series: dict[str, tuple[list[float], list[float]]], label: str) -> str:
    """Quantities over time, a line each: name -> seconds, values."""
    figure, (axis,) = subplots(1)
    for name, (seconds, values) in series.items():
        axis.plot(seconds, values, label=name)
    axis.set(xlabel="seconds", ylabel=label, ylim=(0, None))
    axis.legend(fontsize="small")
    return uri(figure)


def subplots(columns: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(6.2 * columns, 3.6), squeeze=False)
    return figure, axes[0]


def uri(figure: Any) -> str:
    """A figure as an image that stands in the page itself."""
    from matplotlib import pyplot

    figure.tight_layout()
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    pyplot.close(figure)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()
