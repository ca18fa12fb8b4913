"""Alerts and dashboard: valid, tested, and about figures that a running pool really gives."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.measure.alerts import EXPECTED, at_work, raised_by
from tests.measure.chaos import HARMS
from tests.support import prometheus
from tests.support.http import HTTP
from tests.support.prometheus import ALERTS, MONITORING, Prometheus, hurried
from tests.support.recordings import recording, wav
from tests.support.stack import Stack
from tests.support.steady import ask
from tests.support.victim import Victim
from tests.support.waiting import until

WINDOW = wav(recording("goforward_16k.wav").waveform())
needs_promtool = pytest.mark.skipif(prometheus.find("promtool") is None, reason=prometheus.MISSING)
needs_prometheus = pytest.mark.skipif(
    prometheus.find("prometheus") is None, reason=prometheus.MISSING
)
# In PromQL and not in a page of metrics.
TARGET_LABELS = {"machine", "job", "instance"}
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
# Each query of the dashboard, behind its panel's title.
QUERIES = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = prometheus.find("promtool")
    assert program
    return subprocess.run(
        [program, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"),
     ("test", "rules", "alerts_test.yml")],
    ids=["rules", "config", "unit tests"],
)  # fmt: skip
def test_promtool_is_content(arguments):
    told = promtool(*arguments)

    assert told.returncode == 0, told.stdout + told.stderr


def test_every_alert_has_a_test_of_its_own():
    tests = (MONITORING / "alerts_test.yml").read_text()
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())

    assert len(names) == len(set(names)) == 14
    assert [name for name in names if name not in tests] == []


def test_every_harm_has_its_alerts():
    names = set(re.findall(r"alert: Transcription(\w+)", ALERTS.read_text()))

    assert set(EXPECTED) - {"overload", "queue"} == set(HARMS)
    assert set().union(*EXPECTED.values()) <= names


def test_hurried_rules_are_the_same_rules():
    rules = ALERTS.read_text()

    assert hurried("rate(a[5m]) for: 20s", 10) == "rate(a[30s]) for: 2s"
    assert hurried("rate(a[10s])", 10) == "rate(a[4s])"
    assert re.sub(r"\d+[sm]", "", hurried(rules, 10)) == re.sub(r"\d+[sm]", "", rules)


def test_dashboards_panels_do_not_overlap():
    places = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places
        assert max(x for x, _ in cells) < 24
        places |= cells


@pytest.fixture(scope="module")
def scraped(stack: Stack) -> dict[str, set[str]]:
    """What a pool that has worked gives: metric -> names of labels."""
    assert ask(stack.url, WINDOW).good
    assert ask(stack.url, WINDOW, "deferred").good
    stats = f"http://127.0.0.1:{stack.settings['STATS_PORT']}"
    found: dict[str, set[str]] = {}
    pages = [stats + "/metrics", stats + "/metrics/refused"]
    for url in [*pages, stack.worker_url(1) + "/metrics", stack.worker_url(2) + "/metrics"]:
        for family in text_string_to_metric_families(HTTP.get(url).text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[str]:
    """Every expression of the dashboard and the alerts."""
    yield from (query for _, query in QUERIES)
    for found in re.finditer(r"expr: (\|\n(?: {10,}.*\n)+|.+)", ALERTS.read_text()):
        yield found[1].removeprefix("|")


def test_every_metric_and_label_is_really_there(scraped):
    names = set()
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', '""', expression)
        for name, labels in re.findall(
            r"\b((?:transcription|haproxy|process)_\w+)(\{[^}]*\})?", bare
        ):
            names.add(name)
            used = set(re.findall(r"(\w+)\s*[=!]", labels))
            assert name in scraped, expression
            assert used <= scraped[name] | TARGET_LABELS, expression
        known = set().union(*scraped.values()) | TARGET_LABELS
        for group in re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", bare):
            assert {one.strip() for one in group.split(",")} <= known, expression

    assert len(names) > 25


@needs_prometheus
def test_prometheus_answers_every_panel(stack, scraped, tmp_path):
    """By a real one that scrapes as deploy/monitoring/prometheus.yml says."""
    with Prometheus.watching(stack, tmp_path) as watch:
        assert until(lambda: len(watch.query("up == 1")) == 5)
        assert until(lambda: len(watch.query("count_over_time(up[20s]) >= 4")) == 5)
        assert ask(stack.url, WINDOW).good
        assert until(lambda: bool(watch.query(
            "sum(increase(transcription_stage_seconds_count[20s])) > 0")), 20)  # fmt: skip

        empty = [
            (title, query)
            for title, query in QUERIES
            if not watch.query(query.replace("$machine", ".*").replace("$__rate_interval", "30s"))
        ]

    assert empty == []


@needs_prometheus
@pytest.mark.slow
@pytest.mark.alone
def test_alerts_fire_for_harm_and_not_for_work(tmp_path):
    """A few harms of `make chaos`; `make alerts` does all of them."""
    with Stack.started(tmp_path / "run", WORKERS="3", FAIL_FAST_WHEN_BUSY="true") as running:
        victim = Victim(running)
        with Prometheus.watching(running, tmp_path / "prometheus") as watch:
            assert at_work(victim, watch, 10) == set()
            for name in ("kill", "overload"):
                assert raised_by(victim, watch, name) >= EXPECTED[name], name
            assert raised_by(victim, watch, "stop", recover=False) >= EXPECTED["stop"]


def test_grafana_reads_the_file():
    """What Grafana asks of a dashboard: JSON with a title, a schema, and panels with queries."""
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["targets"] for panel in DASHBOARD["panels"] if panel["type"] != "row")
