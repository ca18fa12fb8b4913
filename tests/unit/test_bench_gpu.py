"""The GPU benchmark's own rules: what an interrupted part leaves, and which cuBLAS it lends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from app.config import ROOT
from app.engine import cuda_driver
from tests.measure import bench_gpu
from tests.measure.gpu import cublas, faults, part
from tests.measure.gpu.part import Part
from tests.support.driver import built
from tests.support.processes import alive
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(part, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cublas, "FOLDER", tmp_path / "lent")


def written(name: str) -> dict[str, object]:
    return json.loads((part.RESULTS / f"{name}.json").read_text())


def test_a_part_that_breaks_off_leaves_its_lines(capsys):
    broken = Part("speed")
    broken.add("Requests a second", clients=8, requests_per_s=12.345, busy=None)

    assert written("speed")["finished"] is False
    assert written("speed")["lines"] == [
        {"table": "Requests a second", "clients": 8, "requests_per_s": 12.345, "busy": None}
    ]
    assert "| 8 | 12.3 | - |" in capsys.readouterr().out


def test_a_part_that_finished_says_so():
    whole = Part("speed")
    whole.note("No GPU.")
    whole.finish()

    assert written("speed")["finished"] is True
    assert written("speed")["notes"] == ["No GPU."]


def test_a_part_ends_with_its_time_and_all_its_processes_with_it(tmp_path, capfd):
    """A shell's background process ignores the interrupt."""
    script = f"sleep 300 & echo $! >{tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid && wait"

    assert not bench_gpu.run_command(["sh", "-c", script], 2, os.environ)

    assert "Its 2 s are over" in capfd.readouterr().out
    assert until(lambda: not alive(int((tmp_path / "pid").read_text())), 10)


def test_a_part_that_ends_in_time_has_finished(capfd):
    assert bench_gpu.run_command(["true"], 60, os.environ)
    assert not bench_gpu.run_command(["false"], 60, os.environ)


def test_all_parts_take_15_minutes_at_most():
    assert bench_gpu.ALL_S <= 15 * 60
    assert {path.stem for path in (ROOT / "tests/measure/gpu").glob("*.py")} >= set(bench_gpu.PARTS)


def libraries(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for library in cublas.LIBRARIES:
        (folder / f"{library}.{version}").write_text(version)
    return folder


def test_cublas_13_is_lent_under_the_name_of_12_where_there_is_no_12(tmp_path, monkeypatch):
    monkeypatch.setattr(cublas, "loads", lambda library: False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    real = libraries(tmp_path / "packages" / "nvidia" / "cu13" / "lib", "13")

    told, variables = cublas.environment([str(tmp_path / "packages")], ())

    assert told == f"13 under the name of 12, {real}"
    assert variables == {"LD_LIBRARY_PATH": f"{cublas.FOLDER}:{real}:/before"}
    for library in cublas.LIBRARIES:
        assert (cublas.FOLDER / f"{library}.12").read_text() == "13"


def test_cublas_12_is_preferred(tmp_path):
    libraries(tmp_path / "nvidia" / "cu13" / "lib", "13")
    real = libraries(tmp_path / "nvidia" / "cublas" / "lib", "12")

    told, variables = cublas.environment([str(tmp_path)], ())

    assert told == f"12, {real}"
    assert variables["LD_LIBRARY_PATH"].split(":")[0] == str(real)
    assert not cublas.FOLDER.exists()


def test_the_bundle_takes_the_named_packages_of_a_requirements_file(tmp_path):
    """With their hashes, so that pip checks them."""
    script = (ROOT / "tests/measure/gpu_bundle.sh").read_text()
    function = re.search(r"^packages\(\) \{.*?\n    named.*?$", script, re.M | re.S)
    assert function
    asked = f'{function[0]}\n}}\npackages "$@"'.replace("}\n}", "}")

    def packages(how: str) -> str:
        return subprocess.run(
            ["sh", "-c", asked, "sh", ROOT / "requirements.txt", how, "numpy tokenizers"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    chosen, others = packages("with"), packages("without")
    assert set(re.findall(r"^([a-z0-9-]+)==", chosen, re.M)) == {"numpy", "tokenizers"}
    assert chosen.count("--hash=sha256:") > 2
    assert "ctranslate2==" in others
    assert "\nnumpy==" not in others


def test_the_real_fault_holds_the_gpus_memory_and_gives_it_back(tmp_path, monkeypatch):
    """With the tests' driver library, whose GPU has 1 MiB."""
    library = built(tmp_path)
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(library))

    with faults.memory_taken(4096) as held:
        assert held == (1 << 20) - 4096
        with pytest.raises(cuda_driver.DriverError, match="out of memory"):
            cuda_driver.Driver().join([0], 8192)

    with faults.memory_taken(0) as held:
        assert held == 1 << 20, "all of it was given back"
