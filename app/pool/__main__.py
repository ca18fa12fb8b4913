"""The pool of one machine: its balancer and workers, from `make run` to Ctrl-C.

    python -m app.pool run | stop | status | restart | scale | reload
    python -m app.pool serve | update [PROGRAM …] | supervisorctl COMMAND … | settings

`run` stays in the foreground: it checks what the pool needs, fetches the model, starts
Supervisor (which starts HAProxy and the workers), says when they are ready, and passes on their
log until it is told to stop. `restart` restarts its workers one at a time, `scale` makes them
WORKERS many, `reload` has the balancer read its configuration anew: no request notices.

The second line is for hosts where systemd is the parent (deploy/systemd). `serve` becomes
Supervisor. `update` gives a Supervisor that runs this version's programs and number of workers;
those that stay are not touched. `supervisorctl` speaks to it, and `settings` prints what the
settings come to, for the balancers' configuration.
"""

from __future__ import annotations

import sys

from app.config import Config, ConfigError
from app.pool.pool import Pool, PoolError


def main(arguments: list[str]) -> int:
    """Do what the one argument says."""
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
