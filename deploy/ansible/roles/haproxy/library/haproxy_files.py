#!/usr/bin/python3
"""Install HAProxy's configuration files after HAProxy itself has accepted all of them together.

The new files are first written to a folder of their own, with the installed files that do not
change, and checked there with `haproxy -c`. A refused file replaces nothing: the running balancer,
its next reload and the next boot keep the files that work.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: haproxy_files
short_description: Install HAProxy's configuration files after haproxy -c has accepted them
description:
  - Checks the new files together with the installed ones in a folder of their own.
options:
  folder: {description: The folder of the files., type: path, required: true}
  files: {description: Content by name; empty content removes the file., type: dict, default: {}}
  secrets: {description: Like files; never shown., type: dict, default: {}}
  checked: {description: Whether to ask HAProxy first., type: bool, default: true}
author: maintainers
"""
ALERT = re.compile(r"^\[ALERT\][^:]*:(?: config :)? *(.*)", re.MULTILINE)
SUMMARY = re.compile(r"(fatal|error\(s\)|errors) found|Error\(s\) found", re.IGNORECASE)


def changed_names(folder, contents, modes):
    """Return the names of the files whose content or mode differs."""
    names = []
    for name, content in contents.items():
        path = folder / name
        installed = path.read_text() if path.exists() else ""
        if installed != content or (content and path.stat().st_mode & 0o777 != modes[name]):
            names.append(name)
    return names


def refusal(folder, contents):
    """Return HAProxy's sentences about the files; empty: it accepts them."""
    stage = Path(tempfile.mkdtemp(prefix="haproxy-check-"))  # mode 0700
    try:
        installed = {path.name: path.read_text() for path in folder.glob("*") if path.is_file()}
        for name, content in {**installed, **contents}.items():
            if content:
                (stage / name).write_text(content.replace(str(folder), str(stage)))
        command = ["haproxy", "-c"]
        for path in sorted(stage.glob("*.cfg")):
            command += ["-f", str(path)]
        check = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if check.returncode == 0:
            return ""
        alerts = [alert for alert in ALERT.findall(check.stdout) if not SUMMARY.search(alert)]
        said = " ".join(alerts) or check.stdout.strip()
        return said.replace(str(stage), str(folder))
    finally:
        shutil.rmtree(stage)


def install(path, content, mode):
    """Replace a file of root atomically; remove it if the content is empty."""
    if not content:
        path.unlink(missing_ok=True)
        return
    new = path.with_name(path.name + ".new")
    new.touch(mode=0o600)
    new.write_text(content)
    new.chmod(mode)
    new.replace(path)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "checked": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["folder"])
    contents = {**module.params["files"], **module.params["secrets"]}
    # HAProxy reads the secrets before it gives up root's rights.
    modes = {name: 0o600 if name in module.params["secrets"] else 0o644 for name in contents}
    names = changed_names(folder, contents, modes)
    if names and module.params["checked"]:
        said = refusal(folder, contents)
        if said:
            module.fail_json(
                msg=f"HAProxy refuses the new configuration; nothing was replaced: {said}"
            )
    public = [name for name in names if name in module.params["files"]]
    diff = [
        {
            "before_header": name,
            "after_header": name,
            "before": (folder / name).read_text() if (folder / name).exists() else "",
            "after": contents[name],
        }
        for name in public
    ]
    if not module.check_mode:
        for name in names:
            install(folder / name, contents[name], modes[name])
    module.exit_json(changed=bool(names), names=names, diff=diff)


if __name__ == "__main__":
    main()
