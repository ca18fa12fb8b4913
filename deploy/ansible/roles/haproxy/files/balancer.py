#!/usr/bin/python3
"""Drain workers of this host's balancer and make them ready again, through its admin socket.

    balancer.py drain NAME …    stop new requests; wait until admitted ones are finished
    balancer.py ready NAME …    accept requests again; wait until the balancer reports UP
    balancer.py retire NAME …   drain every worker except these
    balancer.py show            list the workers, one per line: name, state, requests

Changes are printed. Workers that the balancer does not know are new and skipped. On a timeout the
command prints a sentence and exits with status 1.
"""

import argparse
import sys
from pathlib import Path

from haproxy_admin import TAKEN_UP_S, Balancer, RolloutError, wait_until

SOCKET = Path("/run/haproxy/admin.sock")


def drain(balancer, names, limit_s):
    """Stop new requests to these workers; wait until they have finished."""
    for name in names:
        if balancer.server(name).status != "DRAIN":
            balancer.set_state(name, "drain")
            print(f"{name} drained")
    for name in names:
        if not wait_until(lambda name=name: balancer.server(name).requests == 0, limit_s):
            raise RolloutError(f"{name} has not finished within {limit_s:.0f} s.")


def ready(balancer, names):
    """Accept requests again; wait until these workers are up."""
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
        # Stopped, or not set up yet: it sends no requests, and will start with every worker ready.
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
