"""Start, stop and change the pool of one machine: its balancer and workers.

    python -m app.pool run | stop | status | restart | scale | reload
    python -m app.pool serve | update [PROGRAM …] | supervisorctl COMMAND … | settings

`run` stays in the foreground: it checks the requirements, downloads the model, starts Supervisor
(which starts HAProxy and the workers), and reports when they are ready; their log is a file.
`restart` restarts the workers one at a time, `scale` changes their number to WORKERS, `reload`
makes the balancer reread its configuration. None of these interrupts a request. All commands but
`run` use the settings that the pool in RUN_DIR was started with.

The second line is for hosts where systemd is the parent (deploy/systemd). `serve` becomes
Supervisor. `update` gives a running Supervisor this version's programs and number of workers;
unchanged ones keep running. `supervisorctl` passes a command to it, and `settings` prints the
resulting settings, for the balancers' configuration.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from app.config import Config, ConfigError, settings
from app.pool import preflight, probe, supervisor
from app.pool.environment import PoolError, environment, longest_stop_s
from app.pool.haproxy_admin import RolloutError, wait_until
from app.pool.rollout import Rollout
from app.pool.run import run


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    try:
        return command(Config.from_env(), arguments)
    except KeyboardInterrupt:
        say("Stopped.")
        return 128 + signal.SIGINT
    except (ConfigError, PoolError) as error:
        fault = str(error)
    except RolloutError as error:
        fault = f"Stopped: {error}"
    except OSError as error:
        if error.filename is None:
            raise
        fault = f"Stopped: {error.filename} cannot be used ({error.strerror})."
    print(fault, file=sys.stderr)
    return 1


def command(config: Config, arguments: list[str]) -> int:
    """Run the command with these settings of the shell and return its exit status."""
    match arguments:
        case ["run"]:
            return run(config)
        case ["stop"]:
            return stop(config)
        case ["status"]:
            return status(config)
        case ["restart"]:
            rollout(config).restart()
        case ["scale"]:
            scale(config)
        case ["reload"]:
            rollout(config).reload()
        case ["serve"]:
            preflight.check(config)
            return supervisor.become(config)
        case ["update", *programs]:
            return supervisor.update(config, programs)
        case ["supervisorctl", *words]:
            return supervisor.control(config, *words).returncode
        case ["settings"]:
            print_settings(config)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def stop(config: Config) -> int:
    """Stop the pool that runs from this folder after its requests in progress."""
    if supervisor.pid_of(config) is None:
        say("The service does not run from this folder.")
        return 0
    pid, own = supervisor.running(config)
    say(f"Stopping: requests in progress are finished, for {own.drain_timeout_s} s at most.")
    os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: supervisor.pid_of(config) is None, longest_stop_s(own)):
        raise PoolError(f"The service has not ended; its Supervisor is process {pid}.")
    say("Stopped.")
    return 0


def status(config: Config) -> int:
    """Print the processes and the balancer's view of them."""
    _, own = supervisor.running(config)
    supervisor.control(own, "status")
    say(probe.balancer_status(own) or "The balancer does not answer.")
    return 0


def scale(config: Config) -> None:
    """Change the number of workers to the shell's WORKERS."""
    change = rollout(config)
    if "workers" not in config.given:
        raise RolloutError("WORKERS says how many: make scale WORKERS=4")
    change.scale(config.workers)


def rollout(config: Config) -> Rollout:
    """Return a change of the pool that runs from this folder."""
    _, own = supervisor.running(config)
    return Rollout(own, say)


def print_settings(config: Config) -> None:
    """Print the settings and the values derived from them as JSON, without secrets."""
    own = environment(config)
    names = (setting.name.upper() for setting in settings() if setting.repr)
    print(json.dumps({name: own[name] for name in (*names, *config.consequences())}))


def say(text: str) -> None:
    """Print a message to the terminal."""
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
