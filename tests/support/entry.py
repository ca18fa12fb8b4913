"""The real balancer in front of stub workers: the entry without the rest of the service."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.config import ROOT, Config
from app.pool.environment import environment as pool_environment
from app.pool.keys_map import keep_keys
from app.pool.render import balancer_conf, write_balancer
from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.ports import ports
from tests.support.stub_worker import StubWorker
from tests.support.waiting import until

ANSWER_S = 60


@dataclass
class Entry:
    """A balancer that runs, its workers, and what clients and operators see of it."""

    settings: dict[str, str]
    workers: list[StubWorker]
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def started(cls, run_dir: Path, workers: int = 1, **settings: str) -> Iterator[Entry]:
        """Start it as the pool does, wait until every worker is up, and end it after the block.

        Args:
            run_dir: made when it is missing.
            settings: the service's, by the names of their variables.
        """
        own = ports(workers) | {"RUN_DIR": str(run_dir), "WORKERS": str(workers)} | settings
        config = Config.from_env(own, env_file=None)
        run_dir.mkdir(parents=True, exist_ok=True)
        write_balancer(config)
        stubs = [
            StubWorker(number, port) for number, port in enumerate(config.worker_ports, start=1)
        ]
        entry = cls(own, stubs)
        environment = pool_environment(config)
        with ExitStack() as stack:
            for stub in stubs:
                stack.enter_context(stub.serving())
            process = subprocess.Popen(
                [environment["HAPROXY"], "-W", "-db", "-f", str(balancer_conf(config))],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True,
            )  # fmt: skip
            entry.process = process
            reader = threading.Thread(target=entry._read, args=(process,))
            reader.start()
            ended = threading.Event()
            keeper = threading.Thread(
                target=keep_keys, args=(config, lambda: not ended.is_set()), daemon=True
            )
            try:
                assert until(lambda: entry._has_checked(workers)), entry.log
                if config.keys_path:
                    keeper.start()
                yield entry
            finally:
                ended.set()
                process.terminate()
                process.wait(ANSWER_S)
                reader.join()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            self.lines.extend(lines)

    def _has_checked(self, workers: int) -> bool:
        """Return whether each worker has answered a health check; before, all count as up."""
        try:
            found = HTTP.get(self.stats_url + "/status/figures", auth=self.operator).json()
        except (httpx.HTTPError, ValueError):
            return False
        return sum(bool(worker["figures"]) for worker in found["workers"]) == workers

    def reload(self) -> None:
        """Have the balancer read its configuration again, and wait until the new process serves."""
        assert self.process is not None
        before = self.log.count("Loading success")
        self.process.send_signal(signal.SIGUSR2)
        assert until(lambda: self.log.count("Loading success") > before), self.log
        assert until(lambda: self._has_checked(len(self.workers))), self.log

    @property
    def operator(self) -> tuple[str, str] | None:
        """The name and password of the stats page."""
        password = self.settings.get("STATS_PASSWORD")
        return ("operator", password) if password else None

    @property
    def port(self) -> int:
        """The clients' port."""
        return int(self.settings["LB_PORT"])

    @property
    def url(self) -> str:
        """The clients' address."""
        scheme = "https" if "TLS_CERTIFICATE" in self.settings else "http"
        return f"{scheme}://localhost:{self.port}"

    @property
    def stats_url(self) -> str:
        """The stats page's address."""
        return f"http://127.0.0.1:{self.settings['STATS_PORT']}"

    @property
    def log(self) -> str:
        """All that the balancer has logged."""
        return "".join(self.lines)

    @property
    def requests(self) -> list[dict[str, str]]:
        """The balancer's line for each request."""
        lines = [json.loads(line) for line in self.lines if line.startswith('{"time"')]
        return [line for line in lines if "retries" in line]

    def send(
        self, content: bytes, tier: str = "realtime", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Send a transcription and return its answer."""
        return HTTP.post(
            self.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
            files={"file": ("a.wav", content)},
            headers={"X-Transcription-Tier": tier} | (headers or {}), timeout=ANSWER_S,
        )  # fmt: skip

    def status(self) -> list[str]:
        """The lines of /lb-status."""
        return HTTP.get(self.url + "/lb-status").text.splitlines()

    def figures(self) -> dict[str, Any]:
        """Return the figures that the page /status reads."""
        return dict(HTTP.get(self.url + "/status/figures").json())

    def counted(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """A metric of the balancer's own that is not 0, by its labels' values."""
        page = HTTP.get(self.stats_url + "/metrics/refused", auth=self.operator).text
        families = {family.name: family for family in text_string_to_metric_families(page)}
        return {
            tuple(sample.labels.values()): sample.value
            for sample in families[f"transcription_pool_{name}"].samples
            if sample.value and labels.items() <= sample.labels.items()
        }

    def refused(self) -> dict[tuple[str, ...], float]:
        """Refusals by reason and tier."""
        return self.counted("refused")
