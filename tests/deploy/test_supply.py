"""What is installed: pinned, hashed, listed; and every line of the repository that installs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import ROOT

SUPPLY = ROOT / ".run" / "supply" / "bin" / "python"
ANSIBLE = ROOT / "deploy" / "ansible"
TOOL_S = 60
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
        "app/engine/files.py", "app/pool.py", "docs/deployment.md",
    }, "the pattern finds them"  # fmt: skip
    for name, line in found:
        if "--require-hashes" not in line:
            assert name in ("tests/measure/gpu_bundle.sh",), f"{name}: {line}"
    # Its `fetch` is given them by each of its callers.
    bundle = TEXTS["tests/measure/gpu_bundle.sh"]
    fetched = re.findall(r"^fetch (.*)$", bundle, re.M)
    assert len(fetched) == 5
    assert all("--require-hashes" in line for line in fetched)
    assert [line for line in bundle.splitlines() if PIP.search(line) and "install" in line]


def test_python_scripts_that_call_pip_as_a_module_give_hashes():
    """["-m", "pip", "install", …] spans lines."""
    for name in ("tests/service/test_clients.py", "tests/deploy/hosts/test_playbooks.py"):
        calls = re.findall(r'"pip", "(?:install|download)"[^\]]*\]', (ROOT / name).read_text())
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


def tool(*arguments: object) -> str:
    """What one of the supply tools prints."""
    if not SUPPLY.exists():
        pytest.skip("the tools are not installed; run deploy/setup.sh supply")
    done = subprocess.run(
        [SUPPLY, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=TOOL_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestSbom:
    @pytest.fixture(scope="class")
    @classmethod
    def listed(cls, tmp_path_factory) -> dict[str, Any]:
        path = tmp_path_factory.mktemp("sbom") / "sbom.json"
        assert "packages in" in tool("deploy/sbom.py", path)
        # CycloneDX's own schema, strict, with its formats.
        script = (
            "import sys; from cyclonedx.validation.json import JsonStrictValidator as Validator; "
            "from cyclonedx.schema import SchemaVersion; "
            "told = Validator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()); "
            "print(told or 'valid')"
        )
        assert tool("-c", script, path) == "valid\n"
        return dict(json.loads(path.read_text()))

    def test_lists_every_package_with_its_sums(self, listed):
        pinned = {
            (name, version): block
            for path in ("requirements.txt", "deploy/requirements-cuda.txt",
                         "deploy/requirements-model.txt", "deploy/requirements-haproxy.txt")
            for block in re.split(r"\n(?=\S)", (ROOT / path).read_text())
            for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", block)
        }  # fmt: skip
        found = {(one["name"], one["version"]): one for one in listed["components"]}

        assert set(found) == set(pinned)
        for key, one in found.items():
            sums = set(re.findall(r"sha256:([0-9a-f]{64})", pinned[key]))
            assert set(one["properties"][0]["value"].split(", ")) == sums, key

    def test_says_what_brought_each(self, listed):
        edges = {one["ref"]: one["dependsOn"] for one in listed["dependencies"]}
        reached, waiting = set(), ["transcription-service"]
        while waiting:
            ref = waiting.pop()
            if ref not in reached:
                reached.add(ref)
                waiting += edges[ref]

        assert reached == {one["bom-ref"] for one in listed["components"]} | {
            "transcription-service"
        }
        assert any("ctranslate2" in child for child in edges["transcription-service"])


class TestAudit:
    def test_without_a_database_it_says_so_and_ends_well(self, tmp_path):
        """Neither a failure nor a silence that could be read as good news."""
        unreachable = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
        if not SUPPLY.exists():
            pytest.skip("the tools are not installed; run deploy/setup.sh supply")
        told = subprocess.run(
            [SUPPLY, "deploy/audit.py", "--seconds", "15", "deploy/requirements-haproxy.txt"],
            cwd=ROOT, env=unreachable | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=TOOL_S, check=False,
        )  # fmt: skip

        assert told.returncode == 0, told.stderr
        assert told.stdout == (
            "deploy/requirements-haproxy.txt: not audited, the database of vulnerabilities could "
            "not be asked.\n"
        )

    def test_what_is_known_is_listed(self):
        script = """if True:
            import json, sys
            sys.path.insert(0, "deploy")
            from audit import Report
            print(Report.of(json.dumps({"dependencies": [
                {"name": "safe", "version": "1.0", "vulns": []},
                {"name": "own", "skip_reason": "not in the index"},
                {"name": "bad", "version": "2.0", "vulns": [
                    {"id": "PYSEC-1", "fix_versions": ["2.1"]},
                    {"id": "PYSEC-2", "fix_versions": []}]},
            ]})).sentence("a.txt"))
        """
        assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True) == (
            "a.txt: 2 known vulnerabilities in 2 packages, 1 not in the database.\n"
            "  bad 2.0: PYSEC-1, repaired in 2.1\n"
            "  bad 2.0: PYSEC-2\n"
        )

    def test_every_file_of_requirements_is_asked_about(self):
        script = (
            "import sys; sys.path.insert(0, 'deploy'); import audit; "
            "print(*audit.requirements(), sep='\\n')"
        )
        listed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)

        hashed = {
            name for name, text in TEXTS.items() if re.search(r"--hash=sha256:[0-9a-f]", text)
        }
        assert {str(Path(one).relative_to(ROOT)) for one in listed.split()} == hashed
