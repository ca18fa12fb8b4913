"""What a mode writes: one JSON file and one HTML page that stands alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tests.measure.load.figures import Spread
from tests.measure.load.run import Step

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1280px; margin: 2em auto; padding: 0 1em;
       color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
th, td { border: 1px solid #ccc; padding: .25em .6em; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; display: block; margin: .5em 0 }
.good { color: #175 } .bad { color: #b00; font-weight: bold }
pre { background: #f5f5f5; padding: .7em; overflow-x: auto }
"""
MEANING = """
<p>Rates: transcripts that arrived while all users were there, for each second of wall time of that.
Waiting times are of transcripts alone; refusals (503, 429) have columns of their own. <i>left</i>:
the client gave up. RTF: waiting for each second of audio. Totals: every request of the run, as the
clients counted and as HAProxy's frontend counted. CPU s each: the service's CPU
seconds for each transcript. Cores: used at the mean of the run, its start
included; where the service is on this machine, the load and other programs take theirs from it.</p>
"""


@dataclass
class Report:
    """What a mode found.

    Args:
        mode: its name.
        about: hardware, settings, revision; see `about.about`.
        steps: its runs, in their order.
        summary: its findings, name -> value, shown first.
        pictures: title -> data URI.
        troubles: why the figures cannot be trusted, or a limit was broken; none: all is well.
    """

    mode: str
    about: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write both files; returns the page."""
        self.troubles += [
            f"{step.name}: totals differ: {step.mismatch}" for step in self.steps if step.mismatch
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.mode}.json").write_text(json.dumps(self.plain(), indent=1))
        page = folder / f"{self.mode}.html"
        page.write_text(self.html())
        return page

    def plain(self) -> dict[str, Any]:
        """All figures, without journals and pictures."""
        return {
            "mode": self.mode, "about": self.about, "summary": self.summary,
            "steps": [step.plain() for step in self.steps], "troubles": self.troubles,
        }  # fmt: skip

    def html(self) -> str:
        """The page."""
        verdict = "".join(f'<p class="bad">{escape(one)}</p>' for one in self.troubles)
        if not verdict and any(step.totals for step in self.steps):
            verdict = '<p class="good">All totals are those of HAProxy\'s own counters.</p>'
        doubts = [f"{one.name}: {one.cores.doubt}" for one in self.steps if one.cores.doubt]
        verdict += "".join(f'<p class="bad">{escape(one)}</p>' for one in doubts)
        images = "".join(
            f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="{uri}">'
            for title, uri in self.pictures.items()
        )
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Load test: {self.mode}'
            f"</title><style>{STYLE}</style><h1>Load test: {self.mode}</h1>{verdict}"
            f"<h2>Findings</h2>{pairs(self.summary)}<h2>Measured on</h2>{pairs(flat(self.about))}"
            f"<h2>Runs</h2>{MEANING}{table(CLIENT_COLUMNS, self.steps)}"
            f"<h2>Totals</h2>{table(TOTAL_COLUMNS, self.steps)}"
            f"<h2>Inside the service</h2>{table(INSIDE_COLUMNS, self.steps)}{images}</html>\n"
        )


def pairs(values: dict[str, Any]) -> str:
    """A table of names and values."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(shown(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested names, one level."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}: {inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "–"
    return str(value)


def spread(values: Spread) -> list[Any]:
    return [values.min, values.mean, values.p50, values.p95, values.p99, values.max]


# column -> what it shows of a step
CLIENT_COLUMNS = {
    "users": lambda one: one.load.users,
    "workers": lambda one: one.workers or None,
    "wall s": lambda one: one.figures.wall_s,
    "offered/s": lambda one: one.figures.offered_per_s,
    "transcripts/s": lambda one: one.figures.requests_per_s,
    "audio s/s": lambda one: one.figures.audio_s_per_s,
    "min s": lambda one: one.figures.success_s.min,
    "mean s": lambda one: one.figures.success_s.mean,
    "p50 s": lambda one: one.figures.success_s.p50,
    "p95 s": lambda one: one.figures.success_s.p95,
    "p99 s": lambda one: one.figures.success_s.p99,
    "max s": lambda one: one.figures.success_s.max,
    "RTF p50": lambda one: one.figures.rtf.p50,
    "RTF p95": lambda one: one.figures.rtf.p95,
    "ok": lambda one: one.figures.rates["ok"],
    "refused": lambda one: one.figures.rates["refused"],
    "left": lambda one: one.figures.rates["left"],
    "error": lambda one: one.figures.rates["error"],
    "refusal p50 s": lambda one: one.figures.refusal_s.p50,
    "refusal p95 s": lambda one: one.figures.refusal_s.p95,
    "windows lost": lambda one: one.figures.captions and one.figures.captions.lost_share,
    "speech to text p50 s": lambda one: (
        one.figures.captions and one.figures.captions.speech_to_text_s.p50
    ),
    "speech to text p95 s": lambda one: (
        one.figures.captions and one.figures.captions.speech_to_text_s.p95
    ),
    "CPU s each": lambda one: one.cpu_s,
    "cores: service": lambda one: one.cores.service,
    "cores: load": lambda one: one.cores.generator,
    "cores: others": lambda one: one.cores.others,
}
TOTAL_COLUMNS = {
    "sent": lambda one: one.totals and one.totals.sent,
    "HAProxy: requests": lambda one: one.totals and one.totals.requests,
    "transcripts": lambda one: one.totals and one.totals.ok,
    "HAProxy: 2xx": lambda one: one.totals and one.totals.answers_2xx,
    "other answers": lambda one: one.totals and one.totals.other,
    "HAProxy: others": lambda one: one.totals and one.totals.answers_other,
    "without an answer": lambda one: one.totals and one.totals.unanswered,
    "by status": lambda one: one.figures.statuses,
    "agree": lambda one: one.totals and (one.totals.mismatch or "yes"),
}
INSIDE_COLUMNS = {
    "device busy share": lambda one: one.inside["device_busy_share"],
    "calls at once": lambda one: one.inside["device_calls_at_once"],
    "windows per call": lambda one: one.inside["windows_per_call"],
    "wait for the device s": lambda one: one.inside["operation_wait_s"],
    "stages s": lambda one: one.inside["stage_s"],
    "refused": lambda one: one.inside["refused_by_reason"],
    "out of memory": lambda one: one.inside["out_of_memory"],
    "cancelled": lambda one: one.inside["cancelled"],
    "HAProxy's retries": lambda one: one.inside["retries"],
}


def table(columns: dict[str, Any], steps: Sequence[Step]) -> str:
    """A line for each run."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("run", *columns))
    rows = "".join(
        f"<tr><td>{escape(step.name)}</td>"
        + "".join(f"<td>{escape(shown(of(step)))}</td>" for of in columns.values())
        + "</tr>"
        for step in steps
    )
    return f"<table><tr>{head}</tr>{rows}</table>"
