"""What is installed: pinned, hashed, listed; and every line of the repository that installs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from app.config import ROOT

ANSIBLE = ROOT / "deploy" / "ansible"
# An installer's words, as a shell has them, as a list of arguments, or as a person is told them.
PIP = re.compile(r"pip3?\W+(?:install|download)\b")
NPM = re.compile(r"npm\W+(?:install|ci|i|add|exec)\b|\bnpx\W")
OTHERS = re.compile(
    r"\bpipx\b|easy_install|ansible-galaxy|uv (?:pip (?:install|sync)|tool|add)|setup\.py install"
    r"|(?:curl|wget)[^|\n]*\|\s*(?:ba)?sh\b|\b(?:cargo|gem|go|brew|snap) install\b"
)
UNSIGNED = re.compile(
    r"allow-unauthenticated|trusted=yes|AllowInsecureRepositories|--force-yes|allow_unauthenticated"
    r"|--trusted-host|strict-ssl"
)


def texts() -> dict[str, str]:
    """Every text of the repository that could install something, continued lines joined."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    found = {}
    for name in listed:
        path = ROOT / name
        if name == "tests/deploy/test_supply.py" or "/data/" in name or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        # A list of arguments and a sentence may go on in the next line, too.
        joined = re.sub(r"\\\n\s*", " ", text)
        found[name] = re.sub(r'(["\'],|")\n\s+(?=f?["\'])', r"\1 ", joined)
    return found


TEXTS = texts()


def lines_with(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """File and line, wherever it stands."""
    return [
        (name, line)
        for name, text in TEXTS.items()
        for line in text.splitlines()
        if pattern.search(line)
    ]


def test_every_pip_is_given_hashes():
    found = lines_with(PIP)

    assert {name for name, _ in found} >= {
        "deploy/setup.sh", "tests/measure/gpu_bundle.sh", "tests/deploy/hosts/test_playbooks.py",
        "app/engine/files.py", "app/pool/environment.py", "docs/deployment.md",
    }, "the pattern finds them"  # fmt: skip
    for name, line in found:
        if "--require-hashes" not in line:
            assert name in ("tests/measure/gpu_bundle.sh",), f"{name}: {line}"
    # Its `fetch` is given them by each of its callers. What it installs on another machine are
    # these files, without an index.
    bundle = TEXTS["tests/measure/gpu_bundle.sh"]
    fetched = re.findall(r"^fetch (.*)$", bundle, re.M)
    assert len(fetched) == 6
    assert all("--require-hashes" in line for line in fetched)
    assert "fetch cublas --require-hashes" in bundle
    assert "install --quiet --no-index --no-deps" in bundle


def test_python_scripts_that_call_pip_as_a_module_give_hashes():
    """["-m", "pip", "install", …] spans lines."""
    for name in ("tests/service/test_clients.py", "tests/deploy/hosts/test_playbooks.py"):
        calls = re.findall(
            r'"pip", [^\]]*"(?:install|download)"[^\]]*\]', (ROOT / name).read_text()
        )
        assert calls, name
        assert all('"--require-hashes"' in call for call in calls), name


def test_ansible_gives_pip_hashes():
    variables = yaml.safe_load((ANSIBLE / "roles/service/vars/main.yml").read_text())

    assert "'--require-hashes'" in variables["_service_pip"]
    named = [name for name, _ in lines_with(re.compile(r"'-m', 'pip'")) if "ansible" in name]
    assert named == ["deploy/ansible/roles/service/vars/main.yml"], "the one place that says how"
    assert len(lines_with(re.compile(r"argv: .*_service_pip \+"))) == 2
    assert not lines_with(re.compile(r"^\s*(?:- )?(?:ansible\.builtin\.)?(?:pip|get_url|npm|gem):"))


def test_every_npm_installs_its_lock_and_runs_no_script():
    found = lines_with(NPM)

    assert len(found) >= 4
    for name, line in found:
        if name.endswith((".md", "package-lock.json")):
            continue
        assert "--ignore-scripts" in line, f"{name}: {line}"
        assert re.search(r"npm\W+ci\b|--package-lock-only", line), f"{name}: {line}"


@pytest.mark.parametrize("folder", ["tests/service/axe", "tests/service/clients/node"])
def test_every_package_of_a_lock_has_its_hash(folder):
    packages = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    installed = {name: one for name, one in packages.items() if name}

    assert installed
    for name, one in installed.items():
        assert one["integrity"].startswith("sha512-"), name


def test_nothing_else_installs_and_no_signature_is_waived():
    assert lines_with(OTHERS) == []
    assert lines_with(UNSIGNED) == []


def test_patterns_find_what_they_are_for():
    for line in ("pip install x", '"pip", "install"', "pip3 download y", ".venv/bin/pip install z"):
        assert PIP.search(line), line
    for line in ("npm install x", '["npm", "ci"', "npx thing"):
        assert NPM.search(line), line
    for line in ("curl -s a | sh", "wget -qO- b |bash", "ansible-galaxy collection", "pipx run"):
        assert OTHERS.search(line), line


def test_ansible_is_one_version_and_uses_no_collection_but_its_own():
    def version(path: Path) -> str:
        found = re.search(r"^ansible-core==(\S+)", path.read_text(), re.M)
        assert found, path
        return found[1]

    assert version(ANSIBLE / "requirements.txt") == version(ROOT / "tests/requirements.txt")
    modules = {
        match[1]
        for path in ANSIBLE.rglob("*.yml")
        for match in re.finditer(r"^\s*(?:- )?([a-z_]+\.[a-z_]+)\.[a-z_]+:", path.read_text(), re.M)
    }
    assert modules == {"ansible.builtin"}
    assert not list(ANSIBLE.rglob("requirements.yml"))


LOCKS = [name for name, text in TEXTS.items() if name.endswith(".txt") and "--hash=" in text]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_is_in_step_with_its_input(name):
    """Names only: which versions fit is for `make lock`, which asks the index."""
    source = Path(name).with_suffix(".in")
    packages = re.findall(r"^[a-z0-9].*(?:\n +.*)*", (ROOT / name).read_text(), re.M)
    chosen = re.findall(r"^[a-z0-9][a-z0-9-]*", (ROOT / source).read_text(), re.M)

    for package in packages:
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+", package), package
        assert "--hash=sha256:" in package, package
    direct = [
        re.split(r"[=[]", package)[0]
        for package in packages
        if re.search(rf" -r \S*{re.escape(source.name)}$", package, re.M)
    ]
    assert sorted(set(direct)) == sorted(chosen), "run make lock"
