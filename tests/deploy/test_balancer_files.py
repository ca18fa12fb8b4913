"""The module that installs the balancer's files, with the real HAProxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.pool.environment import find_haproxy
from tests.support.certificate import certificate
from tests.support.playbooks import ANSIBLE
from tests.support.ports import free_ports

MODULE = ANSIBLE / "roles/haproxy/library/haproxy_files.py"
SERVICE = """\
defaults
    mode http
    timeout client 1s
    timeout server 1s
    timeout connect 1s
frontend api
    bind 127.0.0.1:{port} {tls}
"""


def install(folder: Path, check: bool = False, **arguments: object) -> dict[str, object]:
    """Run the module as Ansible does, and return its result."""
    told = {"folder": str(folder), "_ansible_check_mode": check, **arguments}
    program = "import runpy, sys; from ansible.module_utils import basic; "
    program += "basic._ANSIBLE_ARGS = sys.stdin.buffer.read(); basic._ANSIBLE_PROFILE = 'legacy'; "
    program += f"runpy.run_path({str(MODULE)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": told}),
        capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(find_haproxy()).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path):
    """A folder with an installed configuration."""
    made = tmp_path / "transcription"
    made.mkdir()
    assert install(made, files={"20-service.cfg": SERVICE.format(port=free_ports(1)[0], tls="")})[
        "changed"
    ]
    return made


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_same_files_change_nothing(folder):
    again = install(folder, files=contents(folder))

    assert (again["changed"], again["names"]) == (False, [])


def test_a_refused_certificate_replaces_nothing_and_is_named_by_haproxy(folder, tmp_path):
    before = contents(folder)
    broken = certificate(tmp_path).read_text().replace("A", "B")
    tls = f"ssl crt {folder}/certificate.pem"

    said = install(
        folder,
        files={"20-service.cfg": SERVICE.format(port=free_ports(1)[0], tls=tls)},
        secrets={"certificate.pem": broken},
    )

    assert said["failed"]
    assert "nothing was replaced" in str(said["msg"])
    assert f"from file '{folder}/certificate.pem'" in str(said["msg"]), "HAProxy's own sentence"
    assert "found in configuration" not in str(said["msg"])
    assert contents(folder) == before


def test_a_new_certificate_is_checked_with_the_installed_files(folder, tmp_path):
    good = certificate(tmp_path).read_text()
    tls = f"ssl crt {folder}/certificate.pem"
    files = {"20-service.cfg": SERVICE.format(port=free_ports(1)[0], tls=tls)}
    assert install(folder, files=files, secrets={"certificate.pem": good})["changed"]

    said = install(folder, secrets={"certificate.pem": "no certificate"})

    assert said["failed"]
    assert (folder / "certificate.pem").read_text() == good
    assert (folder / "certificate.pem").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_others_may_read_is_installed_again(folder, tmp_path):
    pem = certificate(tmp_path).read_text()
    assert install(folder, secrets={"certificate.pem": pem})["changed"]
    (folder / "certificate.pem").chmod(0o640)  # as in earlier versions

    assert install(folder, secrets={"certificate.pem": pem})["names"] == ["certificate.pem"]
    assert (folder / "certificate.pem").stat().st_mode & 0o777 == 0o600
    assert not install(folder, secrets={"certificate.pem": pem})["changed"]


def test_a_dry_run_checks_and_replaces_nothing(folder):
    before = contents(folder)
    wrong = {"20-service.cfg": "frontend api\n    bnd :1\n"}

    refused = install(folder, check=True, files=wrong)
    changed = install(
        folder, check=True, files={"20-service.cfg": before["20-service.cfg"] + "# new\n"}
    )

    assert "unknown keyword 'bnd'" in str(refused["msg"])
    assert changed["changed"]
    assert contents(folder) == before


def test_an_empty_file_is_removed(folder, tmp_path):
    assert install(folder, secrets={"certificate.pem": certificate(tmp_path).read_text()})[
        "changed"
    ]

    install(folder, secrets={"certificate.pem": ""})

    assert not (folder / "certificate.pem").exists()
