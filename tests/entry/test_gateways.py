"""What the balancer does with live sessions where there are several gateways."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from app.config import ROOT, Config
from app.pool.environment import environment
from app.pool.render import BALANCER_CONF, balancer_conf, render
from tests.support.ports import free_ports, ports
from tests.support.waiting import until


@contextmanager
def gateway(port: int, name: str, refuses: bool) -> Iterator[None]:
    """Say the name to each session, or refuse every session with 503."""

    def answer(connection: ServerConnection, request: object) -> object:
        if connection.request is not None and connection.request.path == "/health":
            return connection.respond(200, "ok")
        return connection.respond(503, "full") if refuses else None

    def handle(connection: ServerConnection) -> None:
        connection.send(name)

    with serve(handle, "127.0.0.1", port, process_request=answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("refuses", "heard"), [(False, {"g1", "g2"}), (True, {"g2"})])
def test_sessions_go_to_every_gateway_and_a_full_one_passes_them_on(tmp_path, refuses, heard):
    own = ports(1) | {"RUN_DIR": str(tmp_path), "WORKERS": "1"}
    config = Config.from_env(own, env_file=None)
    names = dict(zip(("g1", "g2"), free_ports(2), strict=True))
    gateways = [{"name": name, "address": f"127.0.0.1:{port}"} for name, port in names.items()]
    workers = [{"name": "w1", "address": f"127.0.0.1:{config.worker_ports[0]}"}]
    balancer_conf(config).write_text(render(BALANCER_CONF, workers=workers, gateways=gateways))
    shell = environment(config)
    with ExitStack() as stack:
        stack.enter_context(gateway(names["g1"], "g1", refuses))
        stack.enter_context(gateway(names["g2"], "g2", refuses=False))
        process = stack.enter_context(
            subprocess.Popen(
                [shell["HAPROXY"], "-db", "-f", str(balancer_conf(config))],
                cwd=ROOT, env=shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        stack.callback(process.terminate)
        assert until(lambda: listens(config.lb_port), 10)
        address = f"ws://127.0.0.1:{config.lb_port}/v1/realtime"
        said = set()
        for _ in range(4):
            with connect(address) as session:
                said.add(session.recv(10))

    assert said == heard


def listens(port: int) -> bool:
    """Return whether something answers on the port."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/lb-status").status_code > 0
    except httpx.HTTPError:
        return False
