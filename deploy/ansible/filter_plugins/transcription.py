"""Check the inventory and work out what the hosts' files say: the filters of the playbooks.

They run on the controller. Settings and keys follow the service's own rules, from `app/config.py`
and `app/keys/keyring.py` of the folder that these playbooks are in. A filter named `…_problems`
returns sentences for the operator; they never contain a key.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jinja2
import yaml

ANSIBLE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ANSIBLE.parents[1]))
from app.config import FORMER_NAMES, settings  # noqa: E402
from app.keys.keyring import (  # noqa: E402
    LIMITS,
    balancer_map,
    digest,
    parsed,
    with_passes,
    written,
)
from app.keys.passes import secret_of  # noqa: E402

# Settings that follow from a variable of the roles, by which the operator sets them.
FROM_VARIABLES = {
    "WORKERS": "service_workers",
    "WORKER_ADDRESS": "service_address",
    "WORKER_BASE_PORT": "service_base_port",
    "GPUS": "service_gpus",
    "DEVICE": "service_device",
    "MODEL_SIZE": "service_model",
    "MODEL_DIR": "service_state",
    "MODEL_SHA256": "service_model_sha256",
    "RUN_DIR": "service_run",
    "API_TOKEN": "service_api_keys",
    "API_KEYS": "service_api_keys",
    "API_KEYS_FILE": "service_api_keys",
    "LIVE_BALANCER_URL": "service_balancer_url",
    "LIVE_SECRET": "service_live_secret",
    "STATS_PASSWORD": "haproxy_stats_password",
    "TLS_CERTIFICATE": "haproxy_tls_pem",
    "LB_PORT": "LB_PORT in haproxy_settings",
    "STATS_PORT": "STATS_PORT in haproxy_settings",
    "STATS_ADDRESS": "STATS_ADDRESS in haproxy_settings",
    "WORKER_ID": "the number of the worker",
    "SUPERVISE_HAPROXY": "the inventory's groups",
}
# Variables of earlier versions, and what an inventory has in their place.
FORMER_VARIABLES = {
    "firewall_worker_ports": "the firewall opens the ports of the workers that the inventory has",
}
# How much a misspelled name has in common with the right one: a letter or two are wrong.
SETTING_LIKENESS = 0.7
# Stricter, because an inventory has variables of other playbooks too.
VARIABLE_LIKENESS = 0.88
# The functions below that playbooks use.
FILTERS = (
    "reasons", "problems", "current_settings", "former_names", "setting_problems",
    "balancer_setting_problems", "balancer_settings", "worker_count", "variable_problems",
    "host_problems", "plain_keys", "key_problems", "key_file", "key_map", "lost_keys",
    "certificate_problems", "workers", "gpu_memory_problems", "taken_ports",
    "balancer_configuration", "with_installed", "without_installed", "stats_addresses",
    "old_releases", "reported", "aligned",
)  # fmt: skip
HEADER_VALUE = re.compile(r"[!-~]+")
BALANCER_SETTING = re.compile(r"\$\{([A-Z_]+)-")
BALANCER_SERVER = re.compile(r"^ +server (\S+) (\S+)$", re.MULTILINE)
WORKERS_LINE = re.compile(r"^WORKERS='?(\d+)", re.MULTILINE)


def reasons(candidates: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the sentences of the candidates that apply.

    Args:
        candidates: `say`, a sentence or a list of them, and `if`, whether it applies (default:
            it does). `say` is evaluated only then.
    """
    said: list[str] = []
    for candidate in candidates:
        if candidate.get("if", True):
            say = candidate["say"]
            said += [say] if isinstance(say, str) else list(say)
    return [" ".join(sentence.split()) for sentence in said]


def problems(hosts: Sequence[str], variables: Mapping[str, Any]) -> list[str]:
    """Return what the roles found on the hosts, in `_ROLE_problems`, each sentence once.

    Args:
        hosts: the hosts.
        variables: the variables of all hosts.
    """
    found = [
        sentence
        for host in hosts
        for role in role_variables()
        for sentence in variables[host].get(f"_{role}_problems", [])
    ]
    return list(dict.fromkeys(found))


def nearest(name: str, known: Iterable[str], likeness: float = SETTING_LIKENESS) -> str:
    """Return the known name that is most like this one; empty: none is."""
    return (get_close_matches(name, [*known], 1, likeness) or [""])[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name."""
    meant = nearest(name, known)
    return f"; did you mean {meant}?" if meant else "."


# --- settings ------------------------------------------------------------------------------------


def current_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their current names, whichever the inventory uses."""
    current = {former: name for name, former in FORMER_NAMES.items()}
    return {current.get(name, name): value for name, value in values.items()}


def former_names(values: Mapping[str, Any], variable: str) -> list[str]:
    """Return a sentence for each setting that the inventory names by its former name."""
    return [
        f"{variable}: {former} is now called {name}; the former name ends with the next release."
        for name, former in FORMER_NAMES.items()
        if former in values
    ]


def setting_problems(values: Mapping[str, Any], variable: str) -> list[str]:
    """Return what is wrong with the names in `service_settings`."""
    known = [setting.name.upper() for setting in settings()]
    problems = []
    for name in values:
        if name in FROM_VARIABLES:
            problems.append(f"{variable}: {name} follows from {FROM_VARIABLES[name]}.")
        elif name not in known and name not in FORMER_NAMES.values():
            problems.append(f"{variable}: {name} is no setting{did_you_mean(name, known)}")
        elif FORMER_NAMES.get(name) in values:
            problems.append(f"{variable}: {FORMER_NAMES[name]} and {name} are the same setting.")
    return problems


def balancer_setting_problems(
    values: Mapping[str, Any], configuration: str, own: Iterable[str]
) -> list[str]:
    """Return what is wrong with the names in `haproxy_settings`.

    Args:
        values: the settings.
        configuration: `deploy/haproxy.cfg`, which names the settings that the balancer reads.
        own: names that the role sets itself.
    """
    problems = []
    read = sorted({*BALANCER_SETTING.findall(configuration)} - {*own})
    for name in values:
        if name in read:
            continue
        if name in FROM_VARIABLES:
            problems.append(f"haproxy_settings: {name} follows from {FROM_VARIABLES[name]}.")
        elif name.lower() in {setting.name for setting in settings()}:
            problems.append(f"haproxy_settings: {name} belongs in service_settings.")
        else:
            problems.append(f"haproxy_settings: {name} is no setting{did_you_mean(name, read)}")
    return problems


def balancer_settings(configuration: str) -> list[str]:
    """Return the names of the settings that the balancer's configuration reads."""
    return sorted({*BALANCER_SETTING.findall(configuration)})


def worker_count(env: str) -> int:
    """Return the number of workers in a file of settings; 0: the file is empty or missing."""
    found = WORKERS_LINE.search(env)
    return int(found[1]) if found else 0


# --- variables of the roles ----------------------------------------------------------------------


def role_variables() -> dict[str, dict[str, Any]]:
    """Return every role's variables as `meta/argument_specs.yml` describes them, by role."""
    return {
        path.parts[-3]: yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
        for path in sorted(ANSIBLE.glob("roles/*/meta/argument_specs.yml"))
    }


def variable_problems(names: Iterable[str]) -> list[str]:
    """Return sentences about former variables of the roles, and about misspelled ones."""
    known = {name for options in role_variables().values() for name in options}
    names = {*names}
    problems = [
        f"{name} is no variable any more: {reason}. Remove it."
        for name, reason in FORMER_VARIABLES.items()
        if name in names
    ]
    for name in sorted(names - known - {*FORMER_VARIABLES}):
        meant = nearest(name, known, VARIABLE_LIKENESS)
        if meant:
            problems.append(f"{name} is no variable of the roles; did you mean {meant}?")
    return problems


def host_problems(names: Sequence[str], known: Sequence[str], variable: str) -> list[str]:
    """Return sentences about names that are not in the inventory."""
    if not names:
        return [f"Name the hosts: -e {variable}=HOST or -e {variable}=HOST,HOST."]
    return [
        f"{variable}: {name} is no GPU host of the inventory{did_you_mean(name, known)}"
        for name in names
        if name not in known
    ]


# --- keys ----------------------------------------------------------------------------------------


def named_keys(keys: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the inventory's keys with their names; a plain string is named by its place."""
    return [
        {"name": f"key-{number}", "key": key} if isinstance(key, str) else dict(key)
        for number, key in enumerate(keys, start=1)
    ]


def plain_keys(keys: Sequence[str | Mapping[str, Any]]) -> list[str]:
    """Return the keys themselves, for requests."""
    return [str(key["key"]) for key in named_keys(keys)]


def key_problems(keys: Sequence[Any]) -> list[str]:
    """Return what is wrong with `service_api_keys`; no sentence contains a key."""
    problems = []
    for number, key in enumerate(keys, start=1):
        if not isinstance(key, (str, Mapping)):
            problems.append(f"service_api_keys: entry {number} is neither a string nor an object.")
            continue
        (entry,) = named_keys([key])
        unknown = sorted({*entry} - {"name", "key", *LIMITS})
        problems += [
            f"service_api_keys: entry {number} has the member {name}; there are name, key, "
            f"{', '.join(LIMITS)}."
            for name in unknown
        ]
        for member in ("name", "key"):
            if not isinstance(entry.get(member), str):
                problems.append(f"service_api_keys: entry {number} has no {member}.")
        if isinstance(entry.get("key"), str) and not HEADER_VALUE.fullmatch(entry["key"]):
            problems.append(
                f"service_api_keys: the key of entry {number} has spaces or letters beyond ASCII."
            )
    if problems:
        return problems
    names = [entry["name"] for entry in named_keys(keys)]
    if len({*names}) < len(names):
        return ["service_api_keys: a name occurs twice."]
    try:
        parsed(json.dumps(key_members(keys)).encode())
    except ValueError as error:
        return [f"service_api_keys: {error}"]
    return []


def key_members(keys: Sequence[str | Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the keys as the key file has them: hashes and limits by name."""
    return {
        str(entry["name"]): {
            "sha256": [digest(str(entry["key"])).hex()],
            **{limit: whole(entry[limit]) for limit in LIMITS if limit in entry},
        }
        for entry in named_keys(keys)
    }


def whole(value: Any) -> Any:
    """Return a limit as a number if it is one; templates return numbers as text."""
    return int(value) if re.fullmatch(r"\d+", str(value)) else str(value)


def key_file(keys: Sequence[str | Mapping[str, Any]]) -> str:
    """Return the key file that the workers read."""
    known = parsed(json.dumps(key_members(keys)).encode())
    return written({key.name: key for key in known})


def key_map(keys: Sequence[str | Mapping[str, Any]], live_secret: str) -> str:
    """Return the map of keys that the balancer reads, with the gateways' passes.

    Args:
        keys: the inventory's keys.
        live_secret: `LIVE_SECRET` of workers and gateways.
    """
    known = parsed(json.dumps(key_members(keys)).encode())
    return balancer_map(with_passes(known, secret_of(live_secret)))


def lost_keys(keys: Sequence[str | Mapping[str, Any]], installed: str) -> list[str]:
    """Return the names whose keys a host accepts now and would not accept afterwards.

    Args:
        keys: the inventory's keys.
        installed: the host's key file; empty: it has none.
    """
    kept = {digest(key) for key in plain_keys(keys)}
    try:
        before = parsed(installed.encode()) if installed.strip() else ()
    except ValueError:
        return []  # unreadable for the workers as well
    return [key.name for key in before if not kept & {*key.hashes}]


# --- certificate ---------------------------------------------------------------------------------


def certificate_problems(pem: str) -> list[str]:
    """Return why certificate and key of a PEM text cannot be used together."""
    if not pem:
        return []
    for label in ("CERTIFICATE", "PRIVATE KEY"):
        if not re.search(rf"-----BEGIN ([A-Z0-9]+ )*{label}-----", pem):
            return [f"haproxy_tls_pem has no {label.lower()}; it holds both as one PEM text."]
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600
        file.write(pem)
        file.flush()
        try:
            # The balancer cannot ask for a password, so it must not be needed.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.name, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or "it needs a password or is malformed"
            return [f"haproxy_tls_pem cannot be used: {str(reason).lower().replace('_', ' ')}."]
    return []


# --- workers -------------------------------------------------------------------------------------


def workers(host: str, count: int, address: str, first_port: int) -> list[dict[str, Any]]:
    """Return a host's workers as the balancers know them, number 1 first."""
    return [
        {"name": f"{host}-{n}", "number": n, "address": f"{address}:{int(first_port) + n - 1}"}
        for n in range(1, int(count) + 1)
    ]


def gpu_memory_problems(
    lines: Sequence[str], gpus: Sequence[str], count: int, needed_mb: int, host: str, model: str
) -> list[str]:
    """Return a sentence for each GPU whose memory is too small for its workers.

    Args:
        lines: `INDEX, MB` as nvidia-smi prints them.
        gpus: the indices in use; other GPUs do not count.
        count: workers of the host.
        needed_mb: MB of one worker.
        host: the host's name.
        model: the model's name.
    """
    each = -(-int(count) // max(1, len(gpus)))  # rounded up
    found = [[field.strip() for field in line.split(",")] for line in lines]
    return [
        f"GPU {index} of {host} has {mb} MB; {each} worker(s) with {model} need {needed_mb} MB "
        "each (service_gpu_memory_mb)."
        for index, mb in found
        if index in gpus and int(mb) < int(needed_mb) * each
    ]


def taken_ports(lines: Sequence[str], ports: Iterable[int | str], unit: str) -> list[str]:
    """Return those of the ports that programs outside a unit listen on.

    Args:
        lines: the output of `ss -Hltn --cgroup`.
        ports: the ports.
        unit: the unit whose programs may have them.
    """
    others = [line for line in lines if unit not in line]
    return [str(port) for port in ports if any(f":{port} " in line for line in others)]


def balancer_configuration(
    template: str, servers: Sequence[Mapping[str, Any]], gateways: Sequence[Mapping[str, Any]]
) -> str:
    """Return `deploy/haproxy.cfg` for these workers and gateways of live sessions."""
    made = jinja2.Template(template, keep_trailing_newline=True, autoescape=False)
    return str(made.render(workers=[*map(dict, servers)], gateways=[*map(dict, gateways)]))


def installed_workers(configuration: str) -> list[tuple[str, str]]:
    """Return name and address of each worker in an installed `haproxy.cfg`; empty without one."""
    _, _, backend = configuration.partition("\nbackend workers\n")
    return BALANCER_SERVER.findall(backend.partition("\nfrontend ")[0])


def with_installed(
    servers: Sequence[Mapping[str, Any]], configuration: str
) -> list[Mapping[str, Any]]:
    """Return the workers, and after them those that only an installed configuration has."""
    names = {server["name"] for server in servers}
    installed = installed_workers(configuration)
    return [*servers] + [{"name": n, "address": a} for n, a in installed if n not in names]


def without_installed(servers: Sequence[Mapping[str, Any]], configuration: str) -> list[str]:
    """Return the names of workers that an installed configuration does not have yet."""
    installed = {name for name, _ in installed_workers(configuration)}
    return [server["name"] for server in servers if server["name"] not in installed]


def stats_addresses(balancers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return address and port of the stats page of each balancer that others reach.

    Args:
        balancers: the variables of each balancer.
    """
    addresses = []
    for variables in balancers:
        values = variables.get("haproxy_settings", {})
        if not str(values.get("STATS_ADDRESS", "127.0.0.1")).startswith("127."):
            address = variables["ansible_facts"]["default_ipv4"]["address"]
            addresses.append(f"{address}:{values.get('STATS_PORT', 8404)}")
    return addresses


# --- releases and reports ------------------------------------------------------------------------


def old_releases(found: Sequence[Mapping[str, Any]], kept: int, in_use: Sequence[str]) -> list[str]:
    """Return the paths of releases to remove: all but the newest and those in use.

    Args:
        found: folders with `path` and `mtime`.
        kept: how many to keep, those in use included.
        in_use: paths of releases that must stay.
    """
    others = [each for each in found if each["path"] not in in_use]
    newest = sorted(others, key=lambda each: each["mtime"], reverse=True)
    return [str(each["path"]) for each in newest[max(0, int(kept) - len({*in_use})) :]]


def reported(hosts: Sequence[str], variables: Mapping[str, Any], name: str) -> list[Sequence[str]]:
    """Return the rows that hosts have reported, and one for each host that has not.

    Args:
        hosts: the hosts.
        variables: the variables of all hosts.
        name: the variable that holds a host's rows.
    """
    rows: list[Sequence[str]] = []
    for host in hosts:
        rows += variables[host].get(name) or [(host, "-", "-", "-", "was not reached")]
    return rows


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as a table with aligned columns."""
    cells = [[" ".join(str(cell).split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {name: globals()[name] for name in FILTERS}
