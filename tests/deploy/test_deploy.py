"""The files an operator deploys: valid, without a second truth, and locked."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
from supervisor.options import ProcessConfig, ServerOptions

from app.config import ROOT, Config, settings
from app.keys.sent import KEY_NAMES
from app.pool.environment import (
    environment,
    find_haproxy,
    longest_stop_s,
    stop_limits_s,
    unit_environment,
)
from app.pool.render import (
    BALANCER_CONF,
    SUPERVISOR_CONF,
    balancer,
    render,
    supervisor_conf,
    write_balancer,
    write_supervisor,
)
from app.pool.supervisor import SUPERVISORD

UNIT = ROOT / "deploy/systemd/transcription.service"
DROP_IN = ROOT / "deploy/ansible/roles/service/templates/drop-in.conf.j2"
REQUIREMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "deploy", ROOT / "deploy/ansible", ROOT / "tests")
    for path in folder.glob("*.txt")
)


def check_balancer(path: Path) -> str:
    """Return what HAProxy says of a configuration, warnings made errors; empty: nothing."""
    checked = subprocess.run(
        [find_haproxy(), "-c", "-dW", "-q", "-f", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    return checked.stdout


def test_balancer_is_valid_as_it_stands():
    assert check_balancer(BALANCER_CONF) == ""


@pytest.mark.parametrize("n_workers", [1, 3, 24])
def test_balancer_is_valid_for_any_number_of_workers(tmp_path, n_workers):
    workers = [{"name": f"w{n}", "address": f"10.0.0.{n}:8001"} for n in range(1, n_workers + 1)]
    rendered = tmp_path / "haproxy.cfg"
    rendered.write_text(render(BALANCER_CONF, workers=workers))

    assert check_balancer(rendered) == ""
    servers = re.findall(r"^ +server (\S+) (\S+)( track workers/\S+)?$", rendered.read_text(), re.M)
    assert [one for one in servers if not one[2]] == [
        (one["name"], one["address"], "") for one in workers
    ]
    assert [name for name, _, track in servers if track] == 2 * [one["name"] for one in workers]


def test_rendering_the_default_number_changes_nothing_but_comments():
    """The file as it stands and the rendered one are one configuration."""

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.strip() and not is_comment(line)]

    rendered = balancer(Config().worker_ports)

    assert lines(rendered) == lines(BALANCER_CONF.read_text())


def is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def test_balancers_defaults_are_the_settings_own(monkeypatch):
    """A number that stands in the file is the setting's default, by the setting's name."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr("resource.getrlimit", lambda limit: (1 << 20, 1 << 20))
    own = environment(Config()) | {"RUN_DIR": "/run/haproxy"}
    used = dict(re.findall(r"\$\{([A-Z_]+)-([^}]*)\}", BALANCER_CONF.read_text()))

    assert used == {name: own[name] for name in used}
    assert "MAX_CONCURRENT_TRANSCRIPTIONS" in used
    assert "LB_PORT" in used


def test_keys_in_urls_are_found_by_one_rule():
    """The balancer looks at its own pages, the workers at theirs."""
    assert f'setenv KEY_NAMES "{KEY_NAMES.pattern}"' in BALANCER_CONF.read_text()


def names_used(text: str) -> set[str]:
    """The variables that Supervisor, and the shells of its commands, take from the environment."""
    return set(re.findall(r"(?:%\(ENV_|\$)([A-Z_]+)", text))


def test_supervisor_reads_only_what_the_pool_gives():
    parser = RawConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(render(SUPERVISOR_CONF, numbers=range(1, 6), stop_limits_s={}))
    used = names_used(SUPERVISOR_CONF.read_text())

    assert used <= set(environment(Config()))
    assert [parser[f"program:worker_{n}"]["environment"] for n in range(1, 6)] == [
        f'WORKER_ID="{n}"' for n in range(1, 6)
    ]
    assert parser["program:worker_1"]["killasgroup"] == "true"
    assert set(parser.sections()) >= {"program:haproxy", "supervisord"}


@pytest.fixture
def misread(tmp_path, monkeypatch):
    """A project's folder whose name has what shells, Supervisor, HAProxy and Lua have a use for."""
    folder = tmp_path / """it's a "b";c,d?#$HOME 100%é\\(x)"""
    folder.mkdir()
    for name in ("app", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.setattr("app.pool.environment.ROOT", folder)
    monkeypatch.setattr("app.pool.render.ROOT", folder)
    return folder


def test_pool_in_a_folder_of_any_name(misread, monkeypatch):
    """HAProxy reads its configuration there, and Supervisor's commands keep their arguments."""
    shown = misread / "shown"
    shown.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    shown.chmod(0o700)
    config = Config(workers=1, api_token="a-key")
    (misread / ".run").mkdir()
    write_balancer(config)
    write_supervisor(config)
    own = environment(config) | {"PYTHON": str(shown), "HAPROXY": str(shown)}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(misread)
    supervisor = ServerOptions()
    supervisor.realize(["-c", str(supervisor_conf(config))])

    assert supervisor.configroot.supervisord.server_configs[0]["file"] == str(
        misread / ".run" / "supervisor.sock"
    )
    haproxy, worker, live = (
        program for group in supervisor.process_group_configs for program in group.process_configs
    )
    assert worker.directory == haproxy.directory == str(misread)
    assert arguments(live) == ["-m", "app.live"]
    assert arguments(worker) == [
        "-m", "gunicorn", "-c", "python:app.worker.gunicorn_conf", "app.main:get_app()"
    ]  # fmt: skip
    assert arguments(haproxy) == ["-W", "-db", "-f", ".run/haproxy.cfg"]


def arguments(program: ProcessConfig) -> list[str]:
    """Return what the command of a program of Supervisor's passes on, run as Supervisor runs it."""
    command = shlex.split(program.command)
    return subprocess.check_output(command, cwd=program.directory, text=True).splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_unit_in_a_folder_with_a_space(tmp_path):
    """Only the name is replaced. systemd itself takes no program whose path has a quote."""
    folder = tmp_path / "100% transcription"
    python = folder / "current/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/transcription", str(folder).replace("%", "%%")))

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip

    assert UNIT.name not in checked.stdout
    assert checked.returncode == 0, checked.stdout


def test_stopping_limits_are_ordered():
    """Gunicorn's limit ends before Supervisor's, or work would be cut off."""
    config = Config(drain_timeout_s=33)

    assert stop_limits_s(config)["worker"] > config.drain_timeout_s


def test_limit_of_the_unit_is_the_longest_stop():
    unit = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)
    drop_in = re.search(r"^TimeoutStopSec=.*\| int \+ (\d+) }}$", DROP_IN.read_text(), re.M)

    assert unit
    assert int(unit[1]) == longest_stop_s(Config())
    assert drop_in
    assert int(drop_in[1]) == longest_stop_s(Config()) - Config().drain_timeout_s


def test_supervisor_stops_all_workers_at_once_and_in_order_of_priority(tmp_path, monkeypatch):
    """Otherwise each busy worker would add its own DRAIN_TIMEOUT_S."""
    (tmp_path / "program").write_text(
        "trap 'echo $1 stops; sleep 1; echo $1 has ended; exit' TERM; echo $1 is up\n"
        "while :; do sleep 0.1; done"
    )
    lines = [
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        "logfile=/dev/null",
        "logfile_maxbytes=0",
    ]
    for name, priority in (("haproxy", 1), ("w1", 999), ("w2", 999), ("live", 1000)):
        lines += [f"[program:{name}]", f"command=sh program {name}", f"priority={priority}"]
        lines += ["stdout_logfile=/dev/fd/1", "stdout_logfile_maxbytes=0"]
    (tmp_path / "conf").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", SUPERVISORD, "-c", "conf"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    up = [running.stdout.readline() for _ in range(4)]

    running.terminate()
    words, _ = running.communicate(timeout=60)

    assert all(line.endswith(" is up\n") for line in up)
    shown = words.splitlines()
    assert shown[:2] == ["live stops", "live has ended"]
    assert set(shown[2:4]) == {"w1 stops", "w2 stops"}
    assert set(shown[4:6]) == {"w1 has ended", "w2 has ended"}
    assert shown[6:] == ["haproxy stops", "haproxy has ended"]
    assert running.returncode == 0


def test_unit_leaves_a_gpu_reachable():
    """What would hide the devices, or forbid code that is written while it runs."""
    assert not re.search(r"^(PrivateDevices|MemoryDenyWriteExecute)=", UNIT.read_text(), re.M)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_unit_lets_decoders_confine_themselves():
    """The unit's own filter must not refuse what the sandbox is made with."""
    allowed: set[str] = set()
    for names in re.findall(r"^SystemCallFilter=(.+)$", UNIT.read_text(), re.M):
        named = set().union(*map(system_calls, names.removeprefix("~").split()))
        allowed = allowed - named if names.startswith("~") else allowed | named

    assert allowed > {"clone", "close_range", "ftruncate", "memfd_create", "preadv", "prctl"}
    assert allowed > {"landlock_create_ruleset", "landlock_restrict_self", "prlimit64", "sendmsg"}
    assert "mount" not in allowed


def system_calls(name: str) -> set[str]:
    """Return what systemd means by a name in a filter."""
    if not name.startswith("@"):
        return {name}
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.splitlines()[1:]  # fmt: skip
    names = [line.strip() for line in shown if line.strip() and not line.strip().startswith("#")]
    return set().union(*map(system_calls, names))


def test_supervisor_under_systemd_gets_no_settings():
    """Each worker reads them from its release when it starts; secrets are in no environment."""
    config = Config(api_token="a-secret", beam_size=3, run_dir=Path("/run/transcription"))
    own = unit_environment(config)
    used = names_used(SUPERVISOR_CONF.read_text())

    assert used <= set(own)
    assert own["LOG_FILE"] == "syslog"
    assert "a-secret" not in own.values()
    assert "BEAM_SIZE" not in own


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_requirement_has_its_version_and_hash(path):
    blocks = re.split(r"\n(?=\S)", path.read_text())
    packages = [block for block in blocks if not block.startswith(("#", "-"))]

    assert packages
    for package in packages:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", package), package
        assert "--hash=sha256:" in package, package
    assert "//" not in path.read_text(), "no address of a registry"


def test_lock_holds_what_is_asked_for():
    for path in REQUIREMENTS:
        asked = re.findall(r"^([a-z][a-z0-9-]+)", path.with_suffix(".in").read_text(), re.M)
        locked = re.findall(r"^([a-z0-9-]+)==", path.read_text(), re.M)
        assert set(asked) <= set(locked), path


def imports(path: Path) -> set[str]:
    """The modules a file imports, as it names them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("app/engine", ("falcon", "app.api", "gunicorn")),
        ("app/audio", ("falcon", "app.api", "app.engine", "faster_whisper", "ctranslate2")),
        ("app/api", ("faster_whisper", "ctranslate2", "av")),
        ("app", ("tests",)),
    ],
)
def test_dependencies_point_one_way(folder, forbidden):
    for path in (ROOT / folder).rglob("*.py"):
        for module in imports(path):
            assert not module.startswith(forbidden), f"{path} imports {module}"


def test_settings_are_read_from_the_environment_in_one_place():
    """Settings are read in config.py; elsewhere `os.environ` is only handed on or set, but for the
    variables of other programs: PATH and CUDA_CACHE_PATH."""
    readers = [
        path.name
        for path in (ROOT / "app").rglob("*.py")
        if re.search(r"os\.environ(\.get|\[[^]]*\](?! *=))|getenv", path.read_text())
    ]
    assert sorted(readers) == ["environment.py", "kernel_cache.py"]


def test_every_setting_is_used():
    sources = "\n".join(
        path.read_text() for path in (ROOT / "app").rglob("*.py") if path.name != "config.py"
    )
    own = (ROOT / "app/config.py").read_text() + BALANCER_CONF.read_text()
    for each in settings():
        used = f".{each.name}" in sources or own.count(f"self.{each.name}")
        assert used or each.name.upper() in own, each.name


def test_shell_scripts_are_sound():
    scripts = [ROOT / "deploy/setup.sh", *(ROOT / "tests").rglob("*.sh")]
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), *scripts],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip

    assert checked.stdout == ""
