"""What the streamed transcription of OpenAI's agents SDK makes of a recording.

python agents_client.py BASE_URL RECORDING (plain 16 kHz WAV)
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

import numpy as np
from agents.voice import OpenAIVoiceModelProvider, StreamedAudioInput, STTModelSettings
from openai import AsyncOpenAI

base_url, recording = sys.argv[1:]
RATE = 24_000


def samples() -> np.ndarray:
    """The recording at the SDK's rate, and a pause: int16."""
    with wave.open(recording) as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    times = np.arange(int(speech.size * RATE / 16_000)) * 16_000 / RATE
    resampled = np.interp(times, np.arange(speech.size), speech).astype(np.int16)
    return np.concatenate([resampled, np.zeros(RATE, np.int16)])


async def main() -> None:
    client = AsyncOpenAI(base_url=base_url, api_key="any")
    model = OpenAIVoiceModelProvider(openai_client=client).get_stt_model("whisper-1")
    audio = StreamedAudioInput()
    session = await model.create_session(audio, STTModelSettings(), False, False)

    async def speak() -> None:
        spoken = samples()
        for begin in range(0, spoken.size, RATE // 10):
            await audio.add_audio(spoken[begin : begin + RATE // 10])
            await asyncio.sleep(0.1)
        await audio.add_audio(None)

    speaking = asyncio.create_task(speak())
    turns = [turn async for turn in session.transcribe_turns()]
    await speaking
    await session.close()
    print(json.dumps({"turns": turns}))


asyncio.run(main())
