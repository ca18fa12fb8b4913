"""The playbooks, run on hosts with a real systemd while clients send windows.

The tests are one story in their order: a host and a balancer, a second host, new releases, a bad
one, hosts that die, fewer hosts, a second balancer; and a single machine. Each leaves the hosts as
the next one expects them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from app.config import ROOT
from app.keys.keyring import digest
from tests.support import models
from tests.support.live import LiveClient
from tests.support.recordings import recording, wav
from tests.support.steady import Load
from tests.support.waiting import until

ANSIBLE = ROOT / "deploy" / "ansible"
PLAY_S = 600
CACHE = ROOT / ".run"
TOOLS = ("systemd-nspawn", "mmdebstrap", "ip", "iptables", "ssh-keygen")
KEY = "first-key"
WORKERS = "pgrep -u transcription -f app.worker.gunicorn_conf"
WINDOW = wav(recording("austen_0890.wav").waveform())
SHARED_ADDRESS = 100
MOVED_S = 5  # from the power cut until the other balancer has the address

# A GPU as far as the roles look: what nvidia-smi would say stands in a file.
STUB = """#!/bin/sh
[ -s /etc/gpus ] || { echo 'No devices were found' >&2; exit 6; }
cat /etc/gpus
"""


def why_not() -> str:
    """Why no hosts can be booted here; empty: they can."""
    if os.geteuid() != 0:
        return "hosts are booted by root alone"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    probe = subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], check=False)
    return "" if probe.returncode == 0 else "namespaces cannot be made here"


REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@dataclass
class Play:
    """What a playbook did."""

    code: int
    text: str

    def count(self, what: str) -> int:
        """How many tasks were `changed`, `failed` …, over all hosts."""
        return sum(map(int, re.findall(rf"{what}=(\d+)", self.text.split("PLAY RECAP")[-1])))


@dataclass
class Fleet:
    """Hosts, and the inventory that names them."""

    folder: Path
    net: str
    gpu_hosts: list[str]
    balancers: list[str]
    variables: dict[str, Any] = field(default_factory=dict)
    monitoring: list[str] = field(default_factory=list)

    def hosts(self, *words: str) -> str:
        """`tests/deploy/hosts/hosts.sh`; returns what it says."""
        done = subprocess.run(
            [Path(__file__).with_name("hosts.sh"), *words],
            env=os.environ
            | {
                "HOSTS_DIR": str(CACHE / "hosts"),
                "HOSTS_BASE": str(CACHE / "hosts-base"),
                "HOSTS_NET": self.net,
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def on(self, name: str, command: str) -> str:
        """Run something on a host."""
        return self.hosts("ssh", name, command)

    def address(self, name: str) -> str:
        return self.hosts("address", name)

    def url(self, name: str | None = None) -> str:
        """The clients' port."""
        return f"http://{self.address(name or self.balancers[0])}:8083"

    def inventory(self) -> Path:
        """The inventory as a file."""
        groups = {
            "gpu_hosts": self.gpu_hosts,
            "load_balancers": self.balancers,
            "monitoring": self.monitoring,
        }
        named = [name for names in groups.values() for name in names]
        path = self.folder / "inventory.json"
        path.write_text(
            json.dumps(
                {
                    "all": {
                        "vars": {
                            "ansible_user": "root",
                            "ansible_ssh_private_key_file": str(CACHE / "hosts" / "key"),
                            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no"
                            " -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
                            "service_device": "cpu",
                            "service_model": "tiny.en",
                            "service_model_source": str(models.tiny_en()),
                            "service_wheels": str(CACHE / "wheels"),
                            "service_api_keys": [KEY],
                            "service_workers": 1,
                            "service_ready_s": 60,
                            "service_settings": {
                                "FAIL_FAST_WHEN_BUSY": "false",
                                "MAX_QUEUE_SIZE": 100,
                                "QUEUE_TIMEOUT_S": 60,
                            },
                        }
                        | self.variables,
                        "hosts": {name: {"ansible_host": self.address(name)} for name in named},
                        "children": {
                            group: {"hosts": {name: {} for name in names}}
                            for group, names in groups.items()
                        },
                    }
                }
            )
        )
        return path

    def play(self, book: str, *words: str, **extra: Any) -> Play:
        """Run a playbook with variables on top of the inventory's."""
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "--inventory", self.inventory(), ANSIBLE / book,
                "--extra-vars", json.dumps(extra), *words,
            ],
            cwd=ANSIBLE, env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PLAY_S,
        )  # fmt: skip
        return Play(done.returncode, done.stdout)

    def load(self) -> Load:
        """Clients that leave the cores some time for the playbooks, which share them."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return Load(self.url(), [WINDOW] * 2, headers, every_s=3)

    def text(self, url: str, key: str = KEY) -> str:
        """A transcript, or the status of what came instead."""
        answer = httpx.post(
            url + "/v1/audio/transcriptions",
            data={"model": "whisper-1", "response_format": "text"},
            files={"file": WINDOW},
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )
        return answer.text if answer.status_code == 200 else str(answer.status_code)

    def heard_live(self, key: str = KEY) -> str:
        """The text of a live session."""

        async def speak() -> str:
            headers = {"Authorization": f"Bearer {key}"}
            async with LiveClient.session(self.url(), headers) as client:
                await client.speak(recording("austen_0890.wav").waveform(), speed=4)
                await client.finish()
                return client.text

        return asyncio.run(asyncio.wait_for(speak(), 60))

    def client_secret(self) -> str:
        """A short-lived token, with which a browser opens a live session."""
        answer = httpx.post(
            self.url() + "/v1/realtime/client_secrets",
            json={"session": {"type": "transcription"}},
            headers={"Authorization": f"Bearer {KEY}"},
        )
        return str(answer.raise_for_status().json()["value"])

    def workers_up(self, balancer: str | None = None) -> int:
        """Workers that a balancer sends requests to."""
        status = httpx.get(self.url(balancer) + "/lb-status", timeout=5).text
        found = re.search(r"Workers: (\d+) of", status)
        assert found, status
        return int(found[1])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One GPU host and one balancer, installed; further hosts are booted and bare."""
    wheels = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary",
         ":all:", "-r", ROOT / "requirements.txt", "-d", CACHE / "wheels"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert wheels.returncode == 0, wheels.stdout
    net = f"10.84.{os.getpid() % 200}"
    made = Fleet(tmp_path_factory.mktemp("fleet"), net, ["gpu1"], ["lb1"])
    try:
        made.hosts("up", "gpu1", "gpu2", "lb1", "lb2", "solo", "watch")
        for name in ("gpu1", "gpu2", "solo"):
            made.on(name, f"cat >/usr/bin/nvidia-smi <<'END'\n{STUB}END\n"
                          "chmod +x /usr/bin/nvidia-smi; echo '0, 24000' >/etc/gpus")  # fmt: skip
        made.dry = made.play("site.yml", "--check")  # type: ignore[attr-defined]
        made.first = made.play("site.yml")  # type: ignore[attr-defined]
        yield made
    finally:
        made.hosts("down")


def test_dry_run_on_bare_hosts_says_what_would_be_done(fleet):
    assert fleet.dry.code == 0, fleet.dry.text
    assert "lb1: haproxy, curl would be installed." in fleet.dry.text
    assert fleet.dry.count("changed") > 0


def test_first_run_serves(fleet):
    assert fleet.first.code == 0, fleet.first.text
    assert "cold-hearted" in fleet.text(fleet.url())
    assert fleet.text(fleet.url(), key="wrong") == "401"
    assert "cold-hearted" in fleet.heard_live(), "the gateway of one host, the balancer of another"


def test_second_run_changes_nothing(fleet):
    again = fleet.play("site.yml")

    assert again.code == 0, again.text
    assert again.count("changed") == 0, again.text


def test_dry_run_says_what_a_change_would_be(fleet):
    dry = fleet.play("site.yml", "--check", "--diff", service_settings={"BEAM_SIZE": 3})

    assert dry.code == 0, dry.text
    assert "would be taken into service" in dry.text
    assert "BEAM_SIZE" not in fleet.on("gpu1", "cat /etc/transcription/env")


def test_configuration_that_haproxy_refuses_replaces_nothing(fleet):
    before = fleet.on("lb1", "cat /etc/haproxy/transcription/*.cfg | sha256sum")

    wrong = {"haproxy_settings": {"LB_PORT": 80830}}
    for words in ([], ["--check"]):
        refused = fleet.play("site.yml", "--tags", "haproxy", *words, **wrong)
        assert refused.code != 0
        assert "HAProxy refuses the new configuration" in refused.text
        assert "80830" in refused.text, "its own sentence"

    assert fleet.on("lb1", "cat /etc/haproxy/transcription/*.cfg | sha256sum") == before
    fleet.on("lb1", "systemctl restart haproxy")
    assert until(lambda: fleet.workers_up() == 1, 30)


def test_workers_are_for_the_balancers_alone(fleet):
    with pytest.raises(httpx.ConnectTimeout):
        httpx.get(f"http://{fleet.address('gpu1')}:8001/health", timeout=2)

    seen = fleet.on("lb1", "python3 -c \"import urllib.request as u; print(u.urlopen("
                           f"'http://{fleet.address('gpu1')}:8001/health').status)\"")  # fmt: skip
    assert seen == "200"
    fleet.on("gpu1", "systemd-run --quiet --unit=other python3 -m http.server 8080")
    assert until(lambda: answers(f"http://{fleet.address('gpu1')}:8080"), 10), "others' ports stay"
    fleet.on("gpu1", "systemctl stop other")


def answers(url: str) -> bool:
    """Whether something listens there."""
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def test_secrets_are_for_the_service_alone(fleet):
    named = "/etc/transcription/keys.json"
    assert fleet.on("gpu1", f"stat -c '%a %U %G' {named}") == "640 root transcription"
    assert digest(KEY).hex() in fleet.on("gpu1", f"cat {named}")
    assert fleet.on("gpu1", f"grep -rl {KEY} /etc/transcription || true") == ""
    secret = (fleet.folder / "secrets" / "live_secret").read_text().strip()
    assert secret in fleet.on("gpu1", "cat /etc/transcription/env")
    for private in (KEY, secret):
        shown = fleet.on("gpu1", "ps axeww; systemctl show transcription.service; journalctl")
        assert private not in shown
        assert private not in fleet.first.text


def test_unit_may_do_little(fleet):
    told = fleet.on("gpu1", "systemd-analyze security transcription.service --no-pager | tail -1")
    exposure = re.search(r"[0-9]+\.[0-9]+", told)

    assert exposure, told
    assert float(exposure[0]) <= 3.0


@pytest.mark.parametrize(
    ("before", "extra", "sentences"),
    [
        (
            "true",
            {
                "service_base_port": 22,
                "haproxy_settings": {"LB_PORT": 22},
                "service_api_keys": ["another-key"],
                "service_settings": {"NO_SUCH": 1, "WORKERZ": 2, "GPUS": "0"},
                "servce_workers": 2,
                "firewall_worker_ports": 100,
                "firewall_open_ports": [443],
                "service_model": "small",
                "service_model_source": "",
                "haproxy_tls_pem": "no certificate",
            },
            [
                "Port 22 of gpu1 is in use",
                "Port 22 of lb1 is in use",
                "service_api_keys no longer has the key of key-1, which clients use now",
                "NO_SUCH is no setting.",
                "WORKERZ is no setting; did you mean WORKERS?",
                "GPUS follows from service_gpus",
                "servce_workers is no variable of the roles; did you mean service_workers?",
                "firewall_worker_ports is no variable any more",
                "have an effect only with firewall_close_other_ports",
                "gpu1 has no model small and does not reach the model hub",
                "haproxy_tls_pem has no certificate",
            ],
        ),
        (
            ": >/etc/gpus; rm /etc/os-release; printf 'ID=alpine\\nNAME=Alpine' >/etc/os-release",
            {"service_device": "cuda", "service_api_keys": []},
            [
                "shows no GPU on gpu1",
                "Debian or Ubuntu is needed",
                "service_api_keys is empty here, but the hosts have keys",
            ],
        ),
        (
            "echo 0, 2000 >/etc/gpus; rm /opt/transcription/current",
            {
                "service_device": "cuda",
                "service_model": "large-v3",
                "service_disk_mb": 99_999_999,
                "service_model_source": "/nowhere",
            },
            ["has 2000 MB", "MB free in", "service_model_source: /nowhere holds no CTranslate2"],
        ),
    ],
    ids=["inventory", "host", "room"],
)
def test_every_reason_not_to_begin_is_said_once(fleet, before, extra, sentences):
    """Before anything is changed."""
    keep = "cp -P /etc/os-release /opt/transcription/current /etc/gpus /root/keep/"
    fleet.on("gpu1", f"mkdir -p /root/keep && {keep} && {{ {before}; }}")
    try:
        stopped = fleet.play("site.yml", **extra)
    finally:
        fleet.on("gpu1", "cd /root/keep && cp -P --remove-destination os-release gpus /etc/ && "
                         "cp -P --remove-destination current /opt/transcription/")  # fmt: skip

    said = " ".join(stopped.text.split())
    assert stopped.code != 0
    assert {sentence: said.count(sentence) for sentence in sentences} == dict.fromkeys(sentences, 1)
    assert "evaluated_to" not in said
    assert stopped.count("changed") == 0, stopped.text


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, "Name the hosts: -e drain=HOST"),
        ({"drain": "gpu11"}, "gpu11 is no GPU host of the inventory; did you mean gpu1?"),
        ({"drain": "gpu1", "state": "redy"}, "state is redy; it is drain or ready."),
    ],
)
def test_a_drain_of_nothing_is_refused(fleet, extra, sentence):
    refused = fleet.play("drain.yml", **extra)

    assert refused.code != 0
    assert sentence in refused.text


def test_more_hosts_and_workers_under_load(fleet):
    """A host that is new in the inventory, and two workers on each in place of one."""
    fleet.gpu_hosts = ["gpu1", "gpu2"]
    fleet.variables = {"service_workers": 2}
    fleet.monitoring = ["watch"]
    with fleet.load() as load:
        more = fleet.play("site.yml")

    assert more.code == 0, more.text
    assert load.failed == {}
    assert until(lambda: fleet.workers_up() == 4, 30)
    assert until(
        lambda: (
            scraped(fleet)
            == {"transcription-workers": 4, "transcription-gateways": 2, "transcription-hosts": 3}
        ),
        60,
    )
    assert "TranscriptionNoWorker" in asked(fleet, "rules")
    fleet.monitoring = []


def asked(fleet: Fleet, path: str) -> str:
    """What Prometheus answers; it listens on the loopback address."""
    url = f"http://127.0.0.1:9090/api/v1/{path}"
    return fleet.on("watch", f"python3 -c \"from urllib.request import *; "
                             f"print(urlopen('{url}').read().decode())\"")  # fmt: skip


def scraped(fleet: Fleet) -> dict[str, int]:
    """How many targets of each job Prometheus reaches."""
    targets = json.loads(asked(fleet, "targets"))["data"]["activeTargets"]
    jobs = [target["labels"]["job"] for target in targets if target["health"] == "up"]
    return {job: jobs.count(job) for job in jobs}


def source(fleet: Fleet, name: str, change: str) -> str:
    """The project with a line more in its application."""
    copy = fleet.folder / name
    for part in ("app", "deploy", "requirements.txt", "LICENSE"):
        target = copy / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("ansible"))
        else:
            shutil.copyfile(ROOT / part, target)
    with (copy / "app" / "main.py").open("a") as file:
        file.write(f"\n{change}\n")
    with (copy / "app" / "pages" / "status.html").open("a") as file:
        file.write(f"<!-- {name} -->\n")
    return str(copy)


def release(fleet: Fleet, host: str = "gpu1") -> str:
    """The release that a host's workers are of, all of them."""
    serving = fleet.on(host, f"for pid in $({WORKERS}); do readlink /proc/$pid/cwd; done")
    (one,) = set(serving.split())
    return one


def test_new_release_and_back_under_load(fleet):
    old = release(fleet)
    fresh = source(fleet, "fresh", "# A new release.")
    with fleet.load() as load:
        deployed = fleet.play("deploy.yml", service_source=fresh)
        new = release(fleet)
        page = httpx.get(fleet.url() + "/status").text
        began = time.monotonic()
        back = fleet.play("rollback.yml")
        elapsed = time.monotonic() - began

    assert deployed.code == 0, deployed.text
    assert new != old
    assert back.code == 0, back.text
    assert [release(fleet, host) for host in fleet.gpu_hosts] == [old, old]
    assert load.failed == {}
    assert "<!-- fresh -->" in page, "the balancers are of the new release"
    assert "<!-- fresh -->" not in httpx.get(fleet.url() + "/status").text, "and back"
    # Half a minute a host on 2 idle cores; longer than this, something waited for its limit.
    assert elapsed < 150 * len(fleet.gpu_hosts)


def test_bad_release_stops_at_the_canary_under_load(fleet):
    """Its workers cannot start: the first host goes back, the second one never hears of it."""
    old = release(fleet)
    bad = source(fleet, "bad", "raise SystemExit('broken on purpose')")
    with fleet.load() as load:
        failed = fleet.play("deploy.yml", service_source=bad, service_ready_s=30)

    assert failed.code != 0
    assert "the hosts after it were left as they are" in " ".join(failed.text.split())
    assert [release(fleet, host) for host in fleet.gpu_hosts] == [old, old]
    assert load.failed == {}
    assert until(lambda: fleet.workers_up() == 4, 30)


def test_keys_change_without_a_restart(fleet):
    before = fleet.on("gpu1", WORKERS)
    with fleet.load() as load:
        both = fleet.play("site.yml", "--tags", "keys", service_api_keys=[KEY, "second-key"])
        heard = fleet.text(fleet.url(), key="second-key")
        first_alone = fleet.play("site.yml", "--tags", "keys")

    assert both.code == 0, both.text
    assert first_alone.code == 0, first_alone.text
    assert load.failed == {}
    assert "cold-hearted" in heard
    assert fleet.on("gpu1", WORKERS) == before


def test_hosts_that_reboot_or_lose_power(fleet):
    with fleet.load() as load:
        time.sleep(2)
        # Timers are a minute late where they are not told to be exact.
        exact = "--timer-property=AccuracySec=100ms"
        fleet.on("gpu1", f"systemd-run --quiet --on-active=1 {exact} systemctl reboot")
        assert until(lambda: fleet.workers_up() == 2, 30)
        assert until(lambda: fleet.workers_up() == 4, 120)
        fleet.hosts("crash", "gpu2")
        assert until(lambda: fleet.workers_up() == 2, 30)
        time.sleep(5)
        fleet.hosts("start", "gpu2")
        assert until(lambda: fleet.workers_up() == 4, 120)

    assert load.failed == {}


def test_report(fleet):
    report = fleet.play("check.yml")

    assert report.code == 0, report.text
    assert report.count("changed") == 0
    table = [line.split() for line in report.text.splitlines() if " ok: transcribes" in line]
    assert [row[0] for row in table] == ["gpu1", "gpu1", "gpu2", "gpu2", "lb1"]
    assert report.text.count("ok: answers") == 2, "gateways"
    assert release(fleet).rsplit("/", 1)[1] in report.text


def test_report_without_a_key_and_with_a_host_that_is_ill(fleet):
    fleet.on("gpu2", "systemctl stop transcription")

    told = fleet.play("check.yml", service_api_keys=[])

    assert told.code != 0
    assert (
        told.text.count("ok: healthy; service_api_keys is empty, so nothing was transcribed") == 2
    )
    assert "gpu2-1 does not serve: it does not answer" in told.text
    assert "not up: gpu2-1, gpu2-2" in told.text
    fleet.on("gpu2", "systemctl start transcription")
    assert until(lambda: fleet.workers_up() == 4, 120)


def test_fewer_hosts_and_workers_under_load(fleet):
    fleet.gpu_hosts = ["gpu1"]
    fleet.variables = {}
    with fleet.load() as load:
        fewer = fleet.play("site.yml")

    assert fewer.code == 0, fewer.text
    assert load.failed == {}
    assert fleet.workers_up() == 1


def test_second_balancer_takes_the_address_over(fleet):
    """The active one loses its power: clients that try again lose nothing."""
    fleet.balancers = ["lb1", "lb2"]
    shared = f"{fleet.net}.{SHARED_ADDRESS}"
    fleet.variables = {"keepalived_address": f"{shared}/24"}
    pair = fleet.play("site.yml")
    assert pair.code == 0, pair.text
    url = f"http://{shared}:8083"
    assert until(lambda: len(holders(fleet, shared)) == 1, 20)
    (active,) = holders(fleet, shared)
    (other,) = {"lb1", "lb2"} - {active}
    client = openai.OpenAI(base_url=url + "/v1", api_key=KEY, timeout=5, max_retries=6)

    def ask() -> str:
        return client.audio.transcriptions.create(file=("a.wav", WINDOW), model="whisper-1").text

    assert "cold-hearted" in ask()
    began = time.monotonic()
    fleet.hosts("crash", active)
    assert until(lambda: holders(fleet, shared) == [other], 10)
    moved = time.monotonic() - began
    assert "cold-hearted" in ask()
    assert moved < MOVED_S
    fleet.hosts("start", active)
    assert until(lambda: fleet.workers_up(active) == 1, 30)
    assert holders(fleet, shared) == [other], "it stays where it is"
    assert "cold-hearted" in ask()


def holders(fleet: Fleet, address: str) -> list[str]:
    """The balancers that have the address."""
    found = []
    for name in fleet.balancers:
        alive = (CACHE / "hosts" / f"{name}.pid").read_text().strip()
        if Path(f"/proc/{alive}").is_dir() and address in fleet.on(name, "ip -br address"):
            found.append(name)
    return found


def test_one_machine(fleet):
    """A host that is both; its workers listen on the loopback address. Then nothing is left."""
    closed = {"firewall_close_other_ports": True, "firewall_ssh_port": 2222}
    solo = Fleet(fleet.folder, fleet.net, ["solo"], ["solo"], {"service_workers": 2} | closed)
    installed = solo.play("site.yml")

    assert installed.code == 0, installed.text
    assert "cold-hearted" in solo.text(solo.url())
    assert "cold-hearted" in solo.heard_live(solo.client_secret())
    assert "127.0.0.1:8002" in solo.on("solo", "ss -Hltn"), "ssh works, on the port in use"
    solo.on("solo", "systemd-run --quiet --unit=other python3 -m http.server 8080")
    assert not answers(f"http://{solo.address('solo')}:8080")
    with solo.load() as load:
        changed = solo.play("deploy.yml", service_source=source(fleet, "solo", "# Another."))
    assert changed.code == 0, changed.text
    assert load.failed == {}

    for flush in ("start", "reload"):
        tables = solo.on("solo", f"systemctl {flush} nftables; nft list tables")
        assert "transcription" in tables, "loaded again"
    former = 'include "/etc/nftables.d/transcription.nft"'
    solo.on("solo", f"echo '{former}' >>/etc/nftables.conf")
    refused = solo.play("uninstall.yml")
    assert "say -e confirm=yes" in refused.text
    removed = solo.play("uninstall.yml", confirm="yes")
    assert removed.code == 0, removed.text
    left = "/opt/transcription /etc/transcription /etc/haproxy/transcription"
    left += " /etc/nftables.d/transcription.nft"
    assert solo.on("solo", f"ls -d {left} 2>/dev/null; true") == ""
    assert "transcription" not in solo.on("solo", "cat /etc/nftables.conf; nft list tables")
