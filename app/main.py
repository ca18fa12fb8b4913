"""Assemble the application: the only place where its objects meet."""

from __future__ import annotations

import logging
import os
import sys

import falcon

from app.api.client_secrets import ClientSecrets
from app.api.disconnect import ClientWatch
from app.api.health import Health, Metrics, Service
from app.api.middleware import Keys, RequestBodyMiddleware, RequestContext
from app.api.models import Models, OneModel
from app.api.pages import Description, Page, Pages
from app.api.recorder import count_from_zero
from app.api.transcriptions import Transcriptions
from app.audio.sandbox.client import Sandbox
from app.config import Config, ConfigError
from app.engine.audio_budget import AudioBudget
from app.engine.engine import Engine
from app.errors import (
    BUG,
    NOTHING_HERE,
    WRONG_METHOD,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    Unauthorized,
    Unavailable,
)
from app.keys.keyring import Keyring
from app.observability import log
from app.worker.starts import LastErrorHandler, Starts

logger = logging.getLogger(__name__)

ENDPOINTS = {
    "transcriptions": "/v1/audio/transcriptions",
    "translations": "/v1/audio/translations",
    "models": "/v1/models",
    "health": "/health",
    "openapi": "/openapi.json",
    "docs": "/docs",
    "playground": "/playground",
}


class Application(falcon.App[falcon.Request, falcon.Response]):
    """WSGI application with its engine, which the server's hooks drain, and its upload sandbox."""

    engine: Engine
    sandbox: Sandbox


def create_app(config: Config, engine: Engine) -> Application:
    """Create the application: routes, middleware and error handlers.

    Raises:
        ConfigError: The key file cannot be used.
    """
    keys = Keys(Keyring(config, count_from_zero))
    app = Application(middleware=[RequestContext(), RequestBodyMiddleware(), keys])
    app.engine = engine
    app.sandbox = Sandbox.of(config)
    watch = ClientWatch()
    app.add_route("/", Service(config, engine, ENDPOINTS))
    app.add_route("/health", Health(config, engine))
    app.add_route("/metrics", Metrics())
    app.add_route("/v1/models", Models(config))
    app.add_route("/v1/models/{model_id:path}", OneModel(config))
    behind = (config, engine, app.sandbox, watch, AudioBudget.of(config))
    app.add_route("/v1/audio/transcriptions", Transcriptions(*behind))
    app.add_route("/v1/audio/translations", Transcriptions(*behind, "translate"))
    app.add_route("/v1/realtime/client_secrets", ClientSecrets(config))
    app.add_route("/v1/realtime/transcription_sessions", ClientSecrets(config, earlier=True))
    pages = Pages()
    app.add_route("/openapi.json", Description(config))
    app.add_route("/docs", Page(pages, "docs.html"))
    app.add_route("/playground", Page(pages, "playground.html"))
    app.add_route("/pages/{name}", pages)
    answers = ErrorAnswers(config)
    app.add_error_handler(Exception, answers.bug)
    app.add_error_handler(falcon.HTTPError, answers.framework)
    app.add_error_handler(ServiceError, answers.service)
    return app


class ErrorAnswers:
    """Error handlers that turn every exception into an OpenAI error body."""

    def __init__(self, config: Config) -> None:
        self._retry_after_s = config.busy_retry_after_s

    def service(
        self, req: falcon.Request, resp: falcon.Response, error: ServiceError, params: object
    ) -> None:
        """Respond to an error of the service itself."""
        req.context.record.failed(error)
        resp.status = error.status
        resp.media = error.body()
        resp.set_header("X-Error", error.code or error.type)  # for the balancer's list of faults
        if isinstance(error, Unauthorized):
            resp.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, Unavailable):
            # The balancer derives the headers that OpenAI's clients obey from it.
            resp.set_header("Retry-After", str(self._retry_after_s))
            resp.set_header("X-Refused", error.reason)  # the balancer counts it

    def framework(
        self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: object
    ) -> None:
        """Respond to a Falcon error: unknown path, wrong method, malformed header."""
        if isinstance(error, falcon.HTTPMethodNotAllowed):
            resp.set_headers(error.headers or {})
            ours: ServiceError = MethodNotAllowed(WRONG_METHOD)
        elif error.status_code == 404:
            ours = NotFound(NOTHING_HERE)
        else:
            ours = InvalidRequest("The request is malformed.")
        self.service(req, resp, ours, params)

    def bug(
        self, req: falcon.Request, resp: falcon.Response, error: Exception, params: object
    ) -> None:
        """Respond to an unhandled exception; its cause is only logged."""
        logger.error("unhandled exception", exc_info=error)
        self.service(req, resp, BUG, params)


def end_process(reason: str) -> None:
    """Exit this worker at once: nothing gentler interrupts a hung device call.

    The balancer resends its requests to another worker, and Supervisor restarts this one.
    """
    logger.critical("exiting worker process: %s", reason)
    logging.shutdown()
    os._exit(1)


def get_app() -> Application:
    """Return the worker's application; the model loads in the background.

    Gunicorn calls this after the fork.
    """
    try:
        config = Config.from_env()
    except ConfigError as error:
        sys.exit(str(error))
    log.configure(config.worker_id, config.log_level, config.log_format)
    if not config.asks_for_key:
        logger.warning(
            "authentication is disabled: API_TOKEN, API_KEYS and API_KEYS_FILE are not set"
        )
    starts = Starts.of(config)
    logging.getLogger().addHandler(LastErrorHandler(starts, logging.ERROR))
    engine = Engine(config, on_fatal=end_process, on_ready=starts.ready)
    app = create_app(config, engine)
    app.sandbox.start()
    engine.start()
    return app
