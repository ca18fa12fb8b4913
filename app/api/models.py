"""Serve the list of models and each model's description."""

from __future__ import annotations

from typing import Any

import falcon

from app.config import Config
from app.errors import UnknownModel

DEFAULT_MODEL = "whisper-1"  # OpenAI's name, which every client may send
CREATED = 1_663_718_400  # 2022-09-21, Whisper's publication; OpenAI's clients require a time


def served_models(config: Config) -> dict[str, dict[str, Any]]:
    """Return the models' OpenAI objects by id."""
    return {
        name: {"id": name, "object": "model", "created": CREATED, "owned_by": "openai"}
        for name in (config.name, DEFAULT_MODEL)
    }


class Models:
    """Model list resource."""

    needs_key = True

    def __init__(self, config: Config) -> None:
        self._models = served_models(config)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"object": "list", "data": list(self._models.values())}


class OneModel:
    """Resource of a single model; ids may contain slashes."""

    needs_key = True

    def __init__(self, config: Config) -> None:
        self._models = served_models(config)

    def on_get(self, req: falcon.Request, resp: falcon.Response, model_id: str) -> None:
        if model_id not in self._models:
            raise UnknownModel(model_id)
        resp.media = self._models[model_id]
