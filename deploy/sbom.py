"""Writes what a service installs as a CycloneDX document: .run/sbom.json.

    make sbom

Every package that pip may put beside the service, with its version, its sums and what brought it;
which of the optional ones (cuBLAS, the small model, HAProxy's binary) a machine has depends on the
machine. What comes from the distribution is in the distribution's own records. Run by the tools'
own environment (deploy/requirements-supply.txt).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OWN = "transcription-service"
SERVICE = "requirements.txt"
OPTIONAL = (
    "deploy/requirements-cuda.txt",
    "deploy/requirements-model.txt",
    "deploy/requirements-haproxy.txt",
)


def components(name: str) -> list[dict[str, Any]]:
    """The packages of one file of pinned requirements, as CycloneDX has them."""
    made = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible",
         "--sv", "1.6", "--of", "JSON", str(ROOT / name)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = list(json.loads(made.stdout)["components"])
    for one in found:
        one["bom-ref"] = one["purl"]
        del one["description"]  # the line of the file, with every sum once more
        # A package needs to be found by its name alone: which index it came from is the user's.
        hashes = [entry for place in one.pop("externalReferences") for entry in place["hashes"]]
        sums = ", ".join(entry["content"] for entry in hashes)
        one["properties"] = [{"name": "accepted-sha256", "value": sums}]
        one["scope"] = "required" if name == SERVICE else "optional"
    return found


def needs() -> dict[str, set[str]]:
    """What each package of the service brings, by names, as `make lock` noted it; the service's
    own choice stands under its own name."""
    found: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", (ROOT / SERVICE).read_text())[1:]:
        package = block.split("==")[0]
        comment = "\n".join(line for line in block.splitlines() if line.startswith("    #"))
        for parent in re.findall(r"(?:via|#) +(-r requirements.in|[a-z0-9-]+)$", comment, re.M):
            found.setdefault(OWN if parent.startswith("-r") else parent, set()).add(package)
    return found


def document() -> dict[str, Any]:
    """The whole, the same for the same files."""
    version = re.search(r'"([0-9.]+)"', (ROOT / "app/__init__.py").read_text())
    assert version
    listed = {one["bom-ref"]: one for name in (SERVICE, *OPTIONAL) for one in components(name)}
    # One name may have two versions, for different versions of Python.
    refs: dict[str, set[str]] = {}
    for ref, one in listed.items():
        refs.setdefault(one["name"], set()).add(ref)
    brought = needs()
    optional = {ref for ref, one in listed.items() if one["scope"] == "optional"}
    own = {ref for name in brought[OWN] for ref in refs[name]} | optional
    edges = {OWN: own} | {
        ref: {child for name in brought.get(one["name"], ()) for child in refs[name]}
        for ref, one in listed.items()
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": OWN, "name": OWN, "version": version[1]
            }
        },
        "components": [listed[ref] for ref in sorted(listed)],
        "dependencies": [{"ref": ref, "dependsOn": sorted(edges[ref])} for ref in sorted(edges)],
    }  # fmt: skip


def main() -> int:
    """Write it, and say where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / ".run/sbom.json")
    chosen = parser.parse_args()
    made = document()
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    chosen.file.write_text(json.dumps(made, indent=1) + "\n")
    print(f"{len(made['components'])} packages in {chosen.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
