"""Sends one recording many times at once with LiteLLM, with the retries that it has by itself.

python litellm_at_once.py BASE_URL RECORDING HOW_MANY
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches one when it is imported

import litellm
import openai

base_url, path, how_many = sys.argv[1:]


def ask(_: int) -> str:
    with Path(path).open("rb") as content:
        try:
            return litellm.transcription(
                model="openai/whisper-1", file=content, api_base=base_url, api_key="any"
            ).text
        except openai.APIStatusError as error:
            return f"{type(error).__name__} {error.status_code}"


with ThreadPoolExecutor(int(how_many)) as clients:
    print(json.dumps({"answers": list(clients.map(ask, range(int(how_many))))}))
