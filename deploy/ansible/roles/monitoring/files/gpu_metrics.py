#!/usr/bin/python3
"""Write GPU metrics from nvidia-smi as a text file for the node exporter."""

import csv
import os
import subprocess
import sys

FIGURES = {
    "utilization.gpu": ("gpu_busy_percent", "share of time in which the GPU was busy", 1),
    "memory.used": ("gpu_memory_used_bytes", "memory in use", 1 << 20),
    "memory.total": ("gpu_memory_total_bytes", "total memory", 1 << 20),
    "temperature.gpu": ("gpu_temperature_celsius", "temperature", 1),
    "power.draw": ("gpu_power_watts", "power", 1),
}


def main():
    target = sys.argv[1]
    query = ",".join(["uuid", *FIGURES])
    output = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    gpus = [[field.strip() for field in row] for row in csv.reader(output.splitlines())]
    lines = []
    for column, (name, help_text, scale) in enumerate(FIGURES.values(), start=1):
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        for index, gpu in enumerate(gpus):
            try:
                value = float(gpu[column]) * scale
            except (ValueError, IndexError):  # [N/A]: not reported by this GPU
                continue
            lines.append(f'{name}{{gpu="{index}",uuid="{gpu[0]}"}} {value:g}')
    with open(target + ".new", "w") as file:
        file.write("\n".join(lines) + "\n")
    os.replace(target + ".new", target)  # the exporter never reads a partial file


if __name__ == "__main__":
    main()
