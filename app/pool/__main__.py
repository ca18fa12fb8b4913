"""Start, stop and change the pool of one machine: its balancer and workers.

    python -m app.pool run | stop | status | restart | scale | reload
    python -m app.pool serve | update [PROGRAM …] | supervisorctl COMMAND … | settings

`run` stays in the foreground: it checks the requirements, downloads the model, starts Supervisor
(which starts HAProxy and the workers), reports when they are ready, and prints their log until it
is stopped. `restart` restarts the workers one at a time, `scale` changes their number to WORKERS,
`reload` makes the balancer reread its configuration. None of these interrupts a request.

The second line is for hosts where systemd is the parent (deploy/systemd). `serve` becomes
Supervisor. `update` gives a running Supervisor this version's programs and number of workers;
unchanged ones keep running. `supervisorctl` passes a command to it, and `settings` prints the
resulting settings, for the balancers' configuration.
"""

from __future__ import annotations

import sys

from app.config import Config, ConfigError
from app.pool.pool import Pool, PoolError


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    try:
        pool = Pool(Config.from_env())
        match arguments:
            case ["run"]:
                pool.check()
                return pool.with_model().run()
            case ["serve"]:
                pool.check()
                return pool.serve()
            case ["update", *programs]:
                return pool.update(programs)
            case ["supervisorctl", *words]:
                return pool.supervisorctl(words)
            case ["settings"]:
                return pool.settings()
            case ["stop"]:
                return pool.stop()
            case ["status"]:
                return pool.status()
            case ["restart"]:
                return pool.change(pool.restart)
            case ["scale"]:
                return pool.change(pool.scale)
            case ["reload"]:
                return pool.change(pool.reload)
    except (ConfigError, PoolError) as error:
        print(error, file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
