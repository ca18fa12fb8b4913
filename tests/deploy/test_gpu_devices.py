"""GPU hosts: what the driver's role checks and creates, as far as a host without a GPU can show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from app.config import ROOT
from tests.support.driver import built

ROLE = ROOT / "deploy" / "ansible" / "roles" / "nvidia"
SCRIPT = ROLE / "files" / "transcription-gpu-devices"


def test_each_gpu_and_mig_instance_gets_its_device_files(tmp_path):
    asked = tmp_path / "asked"
    program = tmp_path / "nvidia-modprobe"
    program.write_text(f'#!/bin/sh\necho "$@" >>"{asked}"\n')
    program.chmod(0o755)
    driver = tmp_path / "driver"
    for card, minor in (("0000:01:00.0", 0), ("0000:41:00.0", 3)):
        (driver / "gpus" / card).mkdir(parents=True)
        (driver / "gpus" / card / "information").write_text(
            f"Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\n"
        )
    instance = driver / "capabilities" / "gpu3" / "mig" / "gi7"
    (instance / "ci0").mkdir(parents=True)
    for access in (instance / "access", instance / "ci0" / "access"):
        access.write_text("DeviceFileMinor: 66\n")

    subprocess.run(
        [SCRIPT], check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "NVIDIA_PROC": str(driver)},
    )  # fmt: skip

    assert asked.read_text().splitlines() == [
        "-u -c 0", "-c 0", "-c 3", f"-f {instance}/access", f"-f {instance}/ci0/access",
    ]  # fmt: skip


def test_a_host_without_instances_is_no_error(tmp_path):
    (tmp_path / "nvidia-modprobe").symlink_to("/bin/true")

    subprocess.run(
        [SCRIPT], check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "NVIDIA_PROC": str(tmp_path / "none")},
    )  # fmt: skip


@pytest.mark.parametrize(("error", "told"), [("0", "0"), ("802", "802"), ("100", "100")])
def test_the_role_asks_cuda_itself(tmp_path, error, told):
    code = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["_nvidia_cuda_init"]
    folder = built(tmp_path).parent

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"LD_LIBRARY_PATH": str(folder), "INIT_ERROR": error},
    )  # fmt: skip

    assert (run.stdout.strip(), run.returncode) == (told, int(error != "0"))


def test_without_cuda_the_role_is_told_nothing():
    code = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["_nvidia_cuda_init"]
    code = code.replace("libcuda.so.1", "libno-such-driver.so.1")

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.stdout == ""
    assert run.returncode != 0


def test_debian_gets_cuda():
    """The driver's package only recommends it, and recommendations are not installed."""
    packages = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())

    assert {"libcuda1", "nvidia-modprobe"} <= set(
        packages["_nvidia_distribution_packages"]["Debian"]
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_unit_of_the_device_files_is_valid():
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", SCRIPT.with_suffix(".service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    faults = [line for line in checked.stderr.splitlines() if "is not executable" not in line]
    assert faults == []


def test_the_unit_keeps_compiled_kernels_and_finds_the_multi_process_service():
    """The first would be lost in /run or a hidden home, the second is hidden in /tmp."""
    lines = (ROOT / "deploy" / "systemd" / "transcription.service").read_text().splitlines()
    variables = dict(
        line.removeprefix("Environment=").split("=", 1)
        for line in lines
        if line.startswith("Environment=CUDA")
    )

    assert "StateDirectory=transcription" in lines
    assert variables["CUDA_CACHE_PATH"].startswith("/var/lib/transcription/")
    assert f"ReadWritePaths=-{variables['CUDA_MPS_PIPE_DIRECTORY']}" in lines
    assert not variables["CUDA_MPS_PIPE_DIRECTORY"].startswith("/tmp")
