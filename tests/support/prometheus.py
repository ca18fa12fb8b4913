"""A real Prometheus on loopback, with the project's alerts, in front of a running pool.

Its scrapes and its rules are quicker than in production, so that a test ends: it looks every
second, and every duration in the rules is divided by the same number.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.config import ROOT
from tests.support.http import HTTP
from tests.support.ports import is_free
from tests.support.stack import Stack
from tests.support.waiting import until

MONITORING = ROOT / "deploy" / "monitoring"
ALERTS = MONITORING / "alerts.yml"
UNPACKED = ROOT / ".run" / "prometheus" / "usr" / "bin"
MISSING = "Prometheus is neither installed nor in .run/prometheus; make test fetches it with apt"
SHORTEST_S = 4  # a range needs two scrapes
READY_S = 30


def find(name: str) -> str | None:
    """`prometheus` or `promtool`: the system's, else the one that the set-up unpacked."""
    return shutil.which(name) or shutil.which(name, path=str(UNPACKED))


def hurried(rules: str, times: float) -> str:
    """The rules with every duration (`for: 20s`, `[5m]`) that many times shorter."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[2]) * {"s": 1, "m": 60}[found[3]]
        least = SHORTEST_S if found[1] == "[" else 1
        return f"{found[1]}{max(least, round(seconds / times))}s{found[4]}"

    return re.sub(r"(\[|for: )(\d+)([sm])(\]|)", shorter, rules)


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    @classmethod
    @contextmanager
    def watching(cls, stack: Stack, folder: Path, times: float = 10.0) -> Iterator[Prometheus]:
        """Watch a pool until the block ends.

        Args:
            folder: for its files, which are left there.
            times: how much quicker the rules are.
        """
        program = find("prometheus")
        assert program, MISSING
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alerts.yml").write_text(hurried(ALERTS.read_text(), times))
        (folder / "prometheus.yml").write_text(configuration(stack))
        port = next(port for port in range(33_000, 34_000) if is_free(port))
        with (folder / "prometheus.log").open("w") as log:
            process = subprocess.Popen(
                [program, f"--config.file={folder / 'prometheus.yml'}",
                 f"--storage.tsdb.path={folder / 'tsdb'}",
                 f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        watching = cls(f"http://127.0.0.1:{port}")
        try:
            assert until(watching.ready, READY_S), (folder / "prometheus.log").read_text()
            yield watching
        finally:
            process.terminate()
            process.wait(20)

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            return HTTP.get(self.url + "/-/ready", timeout=60).status_code == 200
        except httpx.HTTPError:
            return False

    def firing(self) -> set[str]:
        """The alerts that fire now, by name without the prefix they share."""
        alerts = HTTP.get(self.url + "/api/v1/alerts", timeout=60).json()["data"]["alerts"]
        return {
            alert["labels"]["alertname"].removeprefix("Transcription")
            for alert in alerts
            if alert["state"] == "firing"
        }

    def fired(self, since_s: float) -> set[str]:
        """The alerts that fired in the last so many seconds."""
        # Whole seconds, or an alert of what was before might count.
        over = f'count_over_time(ALERTS{{alertstate="firing"}}[{int(since_s)}s])'
        return {
            result["metric"]["alertname"].removeprefix("Transcription")
            for result in self.query(f"count by (alertname) ({over})")
        }

    def query(self, expression: str) -> list[dict[str, dict[str, str]]]:
        """Return what an expression gives now."""
        answer = HTTP.get(
            self.url + "/api/v1/query", params={"query": expression}, timeout=10
        ).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, dict[str, str]]] = answer["data"]["result"]
        return result


def configuration(stack: Stack) -> str:
    """deploy/monitoring/prometheus.yml for this pool, looking every second."""
    text = (MONITORING / "prometheus.yml").read_text()
    workers = int(stack.settings.get("WORKERS", "3"))
    base = int(stack.settings["WORKER_BASE_PORT"])
    targets = ", ".join(f'"127.0.0.1:{base + n}"' for n in range(workers))
    text = text.replace('"127.0.0.1:8404"', f'"127.0.0.1:{stack.settings["STATS_PORT"]}"')
    text = text.replace("127.0.0.1:8405", f"127.0.0.1:{stack.settings['LIVE_PORT']}")
    text = re.sub(r'"127\.0\.0\.1:8001".*?(?=\])', targets, text)
    return re.sub(r"(scrape_interval|evaluation_interval): 5s", r"\1: 1s", text)
