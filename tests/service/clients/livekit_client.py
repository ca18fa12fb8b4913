"""What LiveKit's OpenAI realtime transcription makes of a recording.

python livekit_client.py BASE_URL RECORDING (plain 16 kHz WAV)
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

import aiohttp
import numpy as np
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import openai

base_url, recording = sys.argv[1:]
RATE = 16_000


async def main() -> None:
    with wave.open(recording) as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    samples = np.concatenate([speech, np.zeros(RATE, np.int16)])
    found: dict[str, list[str]] = {"kinds": [], "final": []}
    async with aiohttp.ClientSession() as http:
        model = openai.STT(
            model="gpt-4o-transcribe", use_realtime=True, base_url=base_url, api_key="any"
        )
        model._session = http  # outside of LiveKit's job there is none
        stream = model.stream()
        for begin in range(0, samples.size, RATE // 20):
            piece = samples[begin : begin + RATE // 20]
            stream.push_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, piece.size))
            await asyncio.sleep(0.05)
        async for event in stream:
            found["kinds"].append(str(event.type.value))
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                found["final"].append(event.alternatives[0].text)
                break
        await stream.aclose()
        await model.aclose()
    print(json.dumps(found))


asyncio.run(main())
