"""What pipecat's OpenAI realtime transcription makes of a recording.

python pipecat_client.py BASE_URL RECORDING (plain 16 kHz WAV)
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

base_url, recording = sys.argv[1:]
RATE = 16_000


class Sink(FrameProcessor):
    """Keeps what was transcribed."""

    def __init__(self) -> None:
        super().__init__()
        self.interim: list[str] = []
        self.final: list[str] = []
        self.errors: list[str] = []
        self.has_final = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            self.final.append(frame.text)
            self.has_final.set()
        elif isinstance(frame, InterimTranscriptionFrame):
            self.interim.append(frame.text)
        elif isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        await self.push_frame(frame, direction)


async def main() -> None:
    with wave.open(recording) as file:
        pcm = file.readframes(file.getnframes()) + bytes(RATE)
    service = OpenAIRealtimeSTTService(
        api_key="any", base_url=base_url.replace("http", "ws", 1) + "/realtime"
    )
    sink = Sink()
    worker = PipelineWorker(
        Pipeline([service, sink]),
        cancel_on_idle_timeout=False,
        params=PipelineParams(audio_in_sample_rate=RATE),
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(worker: PipelineWorker, frame: Frame) -> None:
        started.set()

    async def speak() -> None:
        await started.wait()
        await asyncio.sleep(1)
        step = RATE // 10 * 2
        for begin in range(0, len(pcm), step):
            piece = pcm[begin : begin + step]
            frame = InputAudioRawFrame(audio=piece, sample_rate=RATE, num_channels=1)
            await worker.queue_frame(frame)
            await asyncio.sleep(0.1)
        await worker.queue_frame(VADUserStoppedSpeakingFrame())
        await asyncio.wait_for(sink.has_final.wait(), 60)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())
    print(json.dumps({"interim": sink.interim, "final": sink.final, "errors": sink.errors}))


asyncio.run(main())
