"""What LiteLLM makes of the service's answers.

python litellm_client.py BASE_URL RECORDING NO_RECORDING
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches one when it is imported

import litellm
import openai

base_url, *paths = sys.argv[1:]
recording, no_recording = map(Path, paths)


def ask(file: Path = recording, **further: Any) -> Any:
    with file.open("rb") as content:
        return litellm.transcription(
            model="openai/whisper-1",
            file=content,
            api_base=base_url,
            api_key="any",
            max_retries=0,
            **further,
        )


found: dict[str, Any] = {}
for response_format in ("json", "text", "srt", "vtt"):
    found[response_format] = ask(response_format=response_format).text
verbose = ask(
    response_format="verbose_json", timestamp_granularities=["word", "segment"]
).model_dump()
found["verbose_json"] = verbose
found["errors"] = {}
for name, call in {
    "bad_audio": lambda: ask(no_recording),
    "bad_field": lambda: ask(language="klingon"),
}.items():
    try:
        call()
    except openai.APIStatusError as error:  # LiteLLM's errors are made from these
        found["errors"][name] = [type(error).__name__, error.status_code]
print(json.dumps(found))
