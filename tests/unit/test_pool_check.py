"""Why a pool cannot start: one sentence, that names the setting and the remedy."""

from __future__ import annotations

import re
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.config import Config, settings
from app.engine import files
from app.keys.keyring import KeyFileError
from app.pool import __main__ as pool_command
from app.pool import keys_map, preflight, run
from app.pool.environment import MIN_IN_FLIGHT, PoolError, environment, max_in_flight
from app.pool.render import write_balancer
from app.pool.terminal import Terminal
from tests.support.ports import ports
from tests.support.stub_worker import StubWorker


def pool_of(tmp_path: Path, **environ: str) -> Config:
    own = {"RUN_DIR": str(tmp_path), "WORKERS": "1"} | ports(1) | environ
    return Config.from_env(own, env_file=None)


def test_nothing_is_wrong_with_a_pool_that_can_start(tmp_path):
    preflight.check(pool_of(tmp_path))


@pytest.mark.parametrize("name", ["LB_PORT", "STATS_PORT", "WORKER_BASE_PORT"])
def test_port_in_use(tmp_path, name):
    own = ports(1)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(own[name])))
        taken.listen()

        with pytest.raises(PoolError, match=f"^{name}: port {own[name]} cannot be opened"):
            preflight.check(pool_of(tmp_path, **own))


def test_balancers_ports_are_not_looked_at_where_another_runs_it(tmp_path):
    own = ports(1)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(own["LB_PORT"])))
        taken.listen()

        preflight.check(pool_of(tmp_path, SUPERVISE_HAPROXY="false", **own))


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"API_KEYS_FILE": "/nowhere"}, "API_KEYS_FILE: /nowhere cannot be read"),
        ({"API_KEYS_FILE": "Makefile"}, "Makefile: line 1 is not JSON"),
        ({"RUN_DIR": "/proc/nowhere"}, "RUN_DIR: /proc/nowhere cannot be written"),
        ({"TLS_CERTIFICATE": 'a"b.pem'}, "TLS_CERTIFICATE has one of"),
        ({"TLS_CERTIFICATE": "/nope.pem"}, "TLS_CERTIFICATE: /nope.pem cannot be read"),
        ({"TLS_CERTIFICATE": "/proc/self/fdinfo/none"}, "TLS_CERTIFICATE: .* cannot be read"),
        ({"STATS_PASSWORD": "a\\b"}, "STATS_PASSWORD has one of"),
    ],
)
def test_settings_that_cannot_work(tmp_path, environ, sentence):
    with pytest.raises((PoolError, KeyFileError), match=sentence):
        preflight.check(pool_of(tmp_path, **environ))


def test_folder_whose_sockets_would_have_too_long_a_path(tmp_path):
    """107 bytes are the kernel's limit, and Supervisor's socket first has a number behind it."""
    longest = str(tmp_path / "é")
    longest += "x" * (107 - len(f"{longest}/supervisor.sock.4194304".encode()))
    preflight.check(pool_of(Path(longest)))

    with pytest.raises(PoolError, match="too long for a socket"):
        preflight.check(pool_of(Path(longest + "x")))


@pytest.mark.parametrize("letter", [",", "$", '"', "\\"])
def test_folder_that_haproxy_would_misread(tmp_path, letter):
    with pytest.raises(PoolError, match=r"^RUN_DIR has one of "):
        preflight.check(pool_of(tmp_path / letter))


def test_configuration_that_haproxy_does_not_accept(tmp_path):
    with pytest.raises(PoolError, match=r"^HAProxy does not start: .*certificate.*/nowhere"):
        write_balancer(pool_of(tmp_path, TLS_CERTIFICATE="/nowhere"))


def test_rejected_configuration_does_not_replace_the_former_one(tmp_path):
    write_balancer(pool_of(tmp_path))
    before = (tmp_path / "haproxy.cfg").read_text()

    with pytest.raises(PoolError):
        write_balancer(pool_of(tmp_path, TLS_CERTIFICATE="/nowhere"), [9999])

    assert (tmp_path / "haproxy.cfg").read_text() == before


def test_disk_that_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))

    with pytest.raises(PoolError, match="Less than 200 MB are free"):
        preflight.check(pool_of(tmp_path))


@pytest.fixture
def only(monkeypatch):
    """Sets the environment to these settings and no other ones of the service."""
    for each in settings():
        monkeypatch.delenv(each.name.upper(), raising=False)

    def set_to(environ: dict[str, str]) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"DEVICE": "cuda"}, "DEVICE is cuda and no CUDA GPU is visible"),
        ({"MODEL_SIZE": "gigantic"}, "MODEL_SIZE is 'gigantic'"),
        ({"MODEL_SIZE": "/nowhere"}, "the folder /nowhere holds no complete"),
    ],
)
def test_model_or_device_that_is_not_there(capsys, only, monkeypatch, environ, sentence):
    monkeypatch.setattr(files, "gpu_count", lambda: 0)
    only(environ)

    assert files.main() == 1

    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environ", "answer", "gpus", "workers"),
    [
        ({}, "cuda\n2", ("0", "1"), 2),
        ({"CUDA_VISIBLE_DEVICES": "2,GPU-8b"}, "cuda\n2", ("2", "GPU-8b"), 2),
        ({"GPUS": "3"}, "cuda\n4", ("3",), 1),
        ({"WORKERS": "4"}, "cuda\n2", ("0", "1"), 4),
        ({}, "cpu\n0", (), 3),
    ],
)
def test_each_gpu_has_one_worker_unless_workers_says_more(
    only, monkeypatch, environ, answer, gpus, workers
):
    only(environ)
    answer = subprocess.CompletedProcess([], 0, f"tiny\n/models/tiny\n{answer}\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: answer)

    config = run.with_model(Config.from_env(env_file=None))

    assert config
    assert (config.gpus, config.workers) == (gpus, workers)


def test_balancer_knows_the_workers_that_the_gpus_ask_for(tmp_path, monkeypatch):
    """The number of GPUs is known only after the model is fetched, so until then only the first
    worker's port has to be free."""
    monkeypatch.setattr(run, "with_model", lambda config: replace(config, workers=2))
    own = ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(own["WORKER_BASE_PORT"]) + 2))
        taken.listen()

        run.prepare(pool_of(tmp_path, WORKERS="", **own))

    servers = re.findall(r"^ +server (w\d) [\d.:]+$", (tmp_path / "haproxy.cfg").read_text(), re.M)
    assert servers == ["w1", "w2"]


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"WORKERS": "none"}, "WORKERS is 'none'"),
        ({"RUN_DIR": "/proc/nowhere"}, "RUN_DIR: /proc/nowhere cannot be written"),
        ({"TLS_CERTIFICATE": "/nope.pem"}, "TLS_CERTIFICATE: /nope.pem cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["run", "serve"])
def test_command_says_the_sentence_and_nothing_else(capsys, only, command, environ, sentence):
    only(environ)

    assert pool_command.main([command]) == 1

    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("command", ["restart", "scale", "reload", "status"])
def test_command_to_a_pool_that_does_not_run(capsys, only, tmp_path, command):
    only({"RUN_DIR": str(tmp_path)})

    assert pool_command.main([command]) == 1

    said = capsys.readouterr().err
    assert said.startswith(f"No service runs in RUN_DIR={tmp_path}. Start one with `make run`")
    assert len(said.splitlines()) == 1


def test_certificate_is_not_looked_at_where_another_runs_the_balancer(tmp_path):
    config = pool_of(tmp_path, TLS_CERTIFICATE="/nope.pem", SUPERVISE_HAPROXY="false")

    preflight.check(config)


def test_folder_of_certificates_holds_one(tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(PoolError, match=r"TLS_CERTIFICATE: the folder .* holds no PEM file"):
        preflight.check(pool_of(tmp_path, TLS_CERTIFICATE=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, r"^The gateway of live sessions does not answer on LIVE_PORT=\d+;"),
        ({"LIVE_MAX_SESSIONS": "0"}, None),
    ],
)
def test_start_without_a_gateway_ends_in_a_sentence(
    tmp_path, monkeypatch, capsys, environ, sentence
):
    """A gateway in a crash loop never answers."""
    config = pool_of(tmp_path, SUPERVISE_HAPROXY="false", **environ)
    monkeypatch.setattr(run, "ENTRY_S", 0.2)
    worker = StubWorker(1, config.worker_ports[0])
    with worker.serving():
        failure = run.await_ready(config, lambda: True, Terminal())

    assert re.match(sentence, failure) if sentence else failure is None
    assert ("Ready after" in capsys.readouterr().out) == (sentence is None)


def test_trouble_with_the_map_of_keys_is_logged_once(tmp_path, monkeypatch, caplog):
    config = pool_of(tmp_path, API_TOKEN="a-secret")
    (tmp_path / "keys.map").mkdir()  # cannot be read
    turns = iter([True] * 5 + [False])
    monkeypatch.setattr(keys_map, "KEYS_EVERY_S", 0)

    keys_map.keep_keys(config, lambda: next(turns))

    assert caplog.messages == ["RUN_DIR: keys.map cannot be written reason=Is a directory"]


def test_bodies_on_their_way_follow_from_slots_queues_and_memory(tmp_path):
    """Thirty-two GPU workers have more slots than the thousand that there were for everyone."""
    many = pool_of(tmp_path, WORKERS="1", DEVICE="cuda", MAX_QUEUE_SIZE="2000")
    few = pool_of(tmp_path, WORKERS="1", MAX_QUEUE_SIZE="0")

    assert max_in_flight(many) > 1000
    assert max_in_flight(few) == MIN_IN_FLIGHT
    assert environment(many)["MAX_IN_FLIGHT"] == str(max_in_flight(many))
