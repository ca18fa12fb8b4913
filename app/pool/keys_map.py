"""Keep the balancer's map of keys equal to the settings' keys and the key file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from app.config import Config
from app.keys.keyring import Keyring, balancer_map, replace_file
from app.pool.environment import KEYS_MAP, run_dir

KEYS_EVERY_S = 0.5

logger = logging.getLogger(__name__)


def write_keys(config: Config, keyring: Keyring) -> None:
    """Write the currently valid keys to the balancer's map."""
    path = run_dir(config) / KEYS_MAP
    text = balancer_map(keyring.keys_and_passes())
    if not path.exists() or path.read_text() != text:
        replace_file(path, text)


def keep_keys(config: Config, running: Callable[[], bool]) -> None:
    """Update the balancer's map from the key file while the pool runs."""
    keyring = Keyring(config)
    trouble = None
    while running():
        before, trouble = trouble, None
        try:
            write_keys(config, keyring)
        except OSError as error:
            trouble = error.strerror
            if trouble != before:  # else the same line would be logged twice a second
                logger.error("RUN_DIR: keys.map cannot be written reason=%s", trouble)
        time.sleep(KEYS_EVERY_S)
