#!/usr/bin/python3
"""Takes workers out of this host's balancer and puts them back, through its admin socket.

    balancer.py drain NAME …    nothing new goes to them; waits until what is inside is finished
    balancer.py ready NAME …    they take requests again; waits until the balancer says UP
    balancer.py retire NAME …   drains every worker but these
    balancer.py show            the workers, one a line: name, state, requests

What was changed is printed; a worker that the balancer does not know is passed over, since it is
new. Exit status 1, and a sentence: it could not be done in time.
"""

import argparse
import sys
from pathlib import Path

from rollout import TAKEN_UP_S, Balancer, RolloutError, wait_until

SOCKET = Path("/run/haproxy/admin.sock")


def drain(balancer, names, limit_s):
    """Nothing new for these; wait until they have finished."""
    for name in names:
        if balancer.server(name).status != "DRAIN":
            balancer.set_state(name, "drain")
            print(f"{name} drained")
    for name in names:
        if not wait_until(lambda name=name: balancer.server(name).requests == 0, limit_s):
            raise RolloutError(f"{name} has not finished within {limit_s:.0f} s.")


def ready(balancer, names):
    """Requests for these again, once they are up."""
    for name in names:
        if balancer.server(name).status != "UP":
            balancer.set_state(name, "ready")
            print(f"{name} ready")
    for name in names:
        if not wait_until(lambda name=name: balancer.server(name).status == "UP", TAKEN_UP_S):
            raise RolloutError(f"The balancer does not take {name} up.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["drain", "ready", "retire", "show"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds to finish in")
    given = parser.parse_intermixed_args()
    balancer = Balancer(SOCKET)
    try:
        known = [server.name for server in balancer.servers()]
    except (RolloutError, StopIteration) as error:
        # Stopped, or not ours yet: it sends nobody anything, and begins with every worker ready.
        print(f"No balancer to tell. {error}", file=sys.stderr)
        return 0
    try:
        names = [name for name in given.names if name in known]
        if given.what == "drain":
            drain(balancer, names, given.limit)
        elif given.what == "ready":
            ready(balancer, names)
        elif given.what == "retire":
            drain(balancer, [name for name in known if name not in names], given.limit)
        else:
            for server in balancer.servers():
                print(server.name, server.status, server.requests)
    except RolloutError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
