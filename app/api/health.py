"""Serve the worker's health, service description and metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import falcon
import prometheus_client

from app import __version__
from app.api.headers import header_text
from app.api.worker_stats import HEADER, figures
from app.config import Config
from app.engine.engine import Engine
from app.errors import NOTHING_HERE, NotFound


class Health:
    """Health resource; GET returns 200 only if this worker can transcribe now.

    It takes no slot and no lock, so it responds while every slot is busy.
    """

    def __init__(self, config: Config, engine: Engine) -> None:
        self._config = config
        self._engine = engine

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        unready = self._engine.unready
        # The balancer's health check reads no body: these headers carry the worker's id, its
        # figures and the reason it is unready.
        resp.set_header("X-Worker", str(self._config.worker_id))
        resp.set_header(HEADER, figures(self._engine, self._config.name))
        body: dict[str, Any] = {
            "status": "healthy" if unready is None else "unhealthy",
            "worker_id": str(self._config.worker_id),
            "timestamp": datetime.now(UTC).isoformat(),
            "model": self._config.name,
            "device": self._engine.device,
            "gpu_available": self._engine.gpu_available,
            "compute_type": self._config.compute_type,
        }
        if memory := self._engine.gpu_memory:
            body["gpu_memory"] = {"used_bytes": memory.used, "free_bytes": memory.free}
        if unready is not None:
            body["state"] = self._engine.state
            body["reason"] = unready
            resp.set_header("X-Reason", header_text(unready))
            resp.status = falcon.HTTP_503
            resp.set_header("Retry-After", str(self._config.busy_retry_after_s))
        resp.media = body

    on_head = on_get


class Service:
    """Root resource; GET returns the service's name, model, state and endpoints.

    A browser is sent to the playground instead.
    """

    def __init__(self, config: Config, engine: Engine, endpoints: dict[str, str]) -> None:
        self._config = config
        self._engine = engine
        self._endpoints = endpoints

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("Vary", "Accept")
        if "text/html" in (req.get_header("Accept") or ""):  # programs send */* or JSON
            resp.status = falcon.HTTP_302
            resp.location = "/playground"
            return
        resp.media = {
            "service": "transcription-service",
            "version": __version__,
            "worker_id": str(self._config.worker_id),
            "model": self._config.name,
            "device": self._engine.device,
            "multilingual": self._engine.multilingual,
            "translates": self._engine.translates,
            "status": "ready" if self._engine.ready else "initializing",
            "endpoints": self._endpoints,
        }

    on_head = on_get


class Metrics:
    """Metrics resource; GET returns Prometheus text.

    Only the machine itself can read it: workers listen on the loopback address, and the balancer
    does not forward this route. `X-Outside` covers spellings of the path that it does not know.
    """

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.get_header("X-Outside"):
            raise NotFound(NOTHING_HERE)
        resp.data = prometheus_client.generate_latest()
        resp.content_type = prometheus_client.CONTENT_TYPE_LATEST
