"""The playbooks as files: their style, their syntax, and what needs no host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT
from app.keys.keyring import digest, read

ANSIBLE = ROOT / "deploy" / "ansible"
PLAYBOOKS = sorted(path.name for path in ANSIBLE.glob("*.yml"))
EXAMPLE = ANSIBLE / "inventory" / "example" / "hosts.yml"


def test_playbooks_are_clean():
    checked = subprocess.run(
        [Path(sys.executable).with_name("ansible-lint"), "--offline", "--nocolor"],
        cwd=ANSIBLE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip

    assert checked.returncode == 0, checked.stdout


def test_inventorys_keys_become_hashes(tmp_path):
    """By the role's own task, on this machine; read by what reads them on a host."""
    named = {"name": "meetings", "key": "its-key", "requests_per_minute": 600}
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "service", "tasks_from": "keys"}}],
    }  # fmt: skip
    (tmp_path / "play.json").write_text(json.dumps([play]))
    own = {
        "service_api_keys": ["first", named, "second"], "service_config": str(tmp_path),
        "service_user": "root", "ansible_python_interpreter": sys.executable,
    }  # fmt: skip

    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,",
         tmp_path / "play.json", "--extra-vars", json.dumps(own), "--diff", "-vvv"],
        env=os.environ | {"ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    found = {key.name: key for key in read(tmp_path / "keys.json")}
    assert set(found) == {"key-1", "meetings", "key-3"}
    assert found["meetings"].hashes == (digest("its-key"),)
    assert found["meetings"].requests_per_minute == 600
    assert digest("its-key").hex() not in done.stdout


def test_no_task_has_a_key_in_its_environment():
    """Ansible writes it onto the command lines of ssh and of the host's shell."""
    having = [
        path.relative_to(ANSIBLE).as_posix()
        for path in ANSIBLE.rglob("tasks/*.yml")
        if re.search(r"^ +environment:", path.read_text(), re.M)
    ]

    model, settings = "roles/service/tasks/model.yml", "roles/service/tasks/settings.yml"
    assert sorted(having) == [model, settings], "without secrets"


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_syntax(playbook):
    checked = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--syntax-check",
         "--inventory", EXAMPLE, playbook],
        cwd=ANSIBLE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip

    assert checked.returncode == 0, checked.stdout
