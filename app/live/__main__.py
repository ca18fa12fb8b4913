"""Run the gateway of live transcription: `python -m app.live`, which Supervisor starts."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from app.audio.speech_model import speech_model
from app.config import Config, ConfigError
from app.live.gateway import Gateway
from app.observability import log
from app.process import close_memory, die_with_parent, leave_no_core

logger = logging.getLogger(__name__)


async def serve(config: Config) -> None:
    """Serve until SIGTERM, then drain."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    gateway = Gateway(config)
    async with gateway.serve() as server:
        logger.info("gateway listens", extra=log.with_fields({"port": config.live_port}))
        await stopped.wait()
        await gateway.drain(server)


def main() -> None:
    """Read the settings and serve."""
    try:
        config = Config.from_env()
        log.configure(0, config.log_level, config.log_format)
        # These libraries log each connection or request at INFO.
        for name in ("websockets", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.ERROR)
        die_with_parent(signal.SIGTERM)
        leave_no_core()
        close_memory()  # it holds speech and keys
        speech_model()
        asyncio.run(serve(config))
    except (ConfigError, OSError) as error:
        sys.exit(f"The gateway of live transcription does not start: {error}")


if __name__ == "__main__":
    main()
