"""The resources that say which models this worker answers for."""

from __future__ import annotations

from typing import Any

import falcon

from app.config import Config
from app.errors import UnknownModel

DEFAULT_MODEL = "whisper-1"  # OpenAI's name, which every client may send
CREATED = 1_663_718_400  # 2022-09-21, when Whisper was published; OpenAI's clients read a time


def served_models(config: Config) -> dict[str, dict[str, Any]]:
    """The models' OpenAI objects by their ids."""
    return {
        name: {"id": name, "object": "model", "created": CREATED, "owned_by": "openai"}
        for name in (config.name, DEFAULT_MODEL)
    }


class Models:
    """GET the list."""

    needs_key = True

    def __init__(self, config: Config) -> None:
        self._models = served_models(config)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"object": "list", "data": list(self._models.values())}


class OneModel:
    """GET one; ids may hold slashes."""

    needs_key = True

    def __init__(self, config: Config) -> None:
        self._models = served_models(config)

    def on_get(self, req: falcon.Request, resp: falcon.Response, model_id: str) -> None:
        if model_id not in self._models:
            raise UnknownModel(model_id)
        resp.media = self._models[model_id]
