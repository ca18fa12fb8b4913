"""Write the configuration of HAProxy and of Supervisor for the settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jinja2

from app.config import ROOT, Config
from app.keys.keyring import Keyring
from app.pool.environment import PoolError, environment, run_dir, stop_limits_s
from app.pool.keys_map import write_keys

SUPERVISOR_CONF = ROOT / "deploy" / "supervisord.conf"
BALANCER_CONF = ROOT / "deploy" / "haproxy.cfg"


def balancer_conf(config: Config) -> Path:
    """Return the path of the balancer's rendered configuration."""
    return run_dir(config) / "haproxy.cfg"


def supervisor_conf(config: Config) -> Path:
    """Return the path of Supervisor's rendered configuration."""
    return run_dir(config) / "supervisord.conf"


def write_supervisor(config: Config) -> None:
    """Write Supervisor's configuration for the settings' number of workers."""
    numbers = range(1, config.workers + 1)
    has_live = config.live_max_sessions > 0
    text = render(
        SUPERVISOR_CONF, numbers=numbers, has_live=has_live, stop_limits_s=stop_limits_s(config)
    )
    supervisor_conf(config).write_text(text)


def write_balancer(config: Config, ports: Sequence[int] = ()) -> None:
    """Write the balancer's keys and its configuration, for workers on these ports or on the
    settings' ports.

    Raises:
        PoolError: HAProxy rejects it; the previous configuration stays, because Supervisor would
            restart HAProxy forever.
    """
    if config.asks_for_key:
        write_keys(config, Keyring(config))
    text = balancer(ports or config.worker_ports, config.worker_address)
    staged = balancer_conf(config).with_suffix(".new")
    staged.write_text(text)
    own = environment(config)
    check = subprocess.run(
        [own["HAPROXY"], "-c", "-f", str(staged)],
        cwd=ROOT, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    if check.returncode != 0:
        fault = re.search(r"^\[ALERT\] .*? : (?:config : )?(.*)", check.stderr, re.M)
        raise PoolError(f"HAProxy does not start: {fault[1] if fault else check.returncode}")
    staged.replace(balancer_conf(config))


def balancer(ports: Sequence[int], address: str = "127.0.0.1") -> str:
    """Return the balancer's configuration with workers on these ports, not its default three."""
    workers = [
        {"name": f"w{number}", "address": f"{address}:{port}"}
        for number, port in enumerate(ports, start=1)
    ]
    return render(BALANCER_CONF, workers=workers)


def render(template: Path, **values: object) -> str:
    """Render a configuration template."""
    text = jinja2.Template(template.read_text(), keep_trailing_newline=True, autoescape=False)
    return str(text.render(**values))
