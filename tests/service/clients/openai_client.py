"""What OpenAI's Python client of this interpreter makes of the service's answers.

python openai_client.py BASE_URL RECORDING NO_RECORDING LONG_RECORDING
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

base_url, *paths = sys.argv[1:]
recording, no_recording, long_recording = map(Path, paths)
client = openai.OpenAI(base_url=base_url, api_key="any", max_retries=0)


def ask(file: Path = recording, **further: Any) -> Any:
    return client.audio.transcriptions.create(file=file, model="whisper-1", **further)


def shown(answer: Any) -> Any:
    return answer if isinstance(answer, str) else answer.model_dump(exclude_none=True)


found: dict[str, Any] = {}
for response_format in ("json", "text", "srt", "vtt"):
    found[response_format] = shown(ask(response_format=response_format))
found["verbose_json"] = shown(
    ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
)
found["logprobs"] = shown(ask(response_format="json", include=["logprobs"]))
found["events"] = []
began, first_s = time.monotonic(), 0.0
for event in ask(long_recording, stream=True, include=["logprobs"]):
    first_s = first_s or time.monotonic() - began
    found["events"].append(shown(event))
found["first_share"] = first_s / (time.monotonic() - began)
found["models"] = [one.id for one in client.models.list()]
found["model"] = client.models.retrieve(found["models"][0]).object

failures: dict[str, Callable[[], Any]] = {
    "bad_audio": lambda: ask(no_recording),
    "bad_audio_stream": lambda: ask(no_recording, stream=True),
    "bad_field": lambda: ask(language="klingon"),
    "no_translation": lambda: client.audio.translations.create(file=recording, model="whisper-1"),
    "no_model": lambda: client.models.retrieve("none"),
}
found["errors"] = {}
for name, call in failures.items():
    try:
        call()
    except openai.APIStatusError as error:
        found["errors"][name] = [type(error).__name__, error.status_code, error.param]
print(json.dumps(found))
