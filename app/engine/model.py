"""The model in memory: load it, try it, and let requests run through it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import faster_whisper
import numpy as np

from app.audio.decode import decode
from app.audio.limits import Limits
from app.config import Config
from app.engine.admission import Tier
from app.engine.batching.batched_model import BatchedModel
from app.engine.batching.device import Device
from app.engine.batching.operation import Kind
from app.engine.batching.request_model import RequestModel
from app.engine.cancellation import Cancellation
from app.engine.encoder_window import FULL_FRAMES
from app.engine.files import ModelError, find_model, one_line
from app.engine.gpu_memory import GpuMemory
from app.engine.hallucination_filter import HallucinationFilter
from app.engine.hardware import choose_device, gpu_count, preload_cublas
from app.engine.options import DecodeOptions
from app.engine.results import Segment, Transcript, run_to_end
from app.engine.transcription import Transcription
from app.errors import InvalidRequest

logger = logging.getLogger(__name__)

# "Unless to be rather cold-hearted and rather selfish is to be ill-disposed": LibriVox, Sense and
# Sensibility, public domain.
WARM_UP_RECORDING = Path(__file__).with_name("warm_up.flac")
# Trained without translation: they answer in the language they hear.
NO_TRANSLATION = ("turbo", "distil")


class Model:
    """faster-whisper's model on its device; any number of request threads may call it.

    Args:
        config: which model, where, and the server's share of the decoding options.
        max_batch: the most windows of one call; None: the settings' on a GPU, until
            `try_full_batch` finds that fewer have room, and one on a CPU, where windows side by
            side do more than in one call.

    Raises:
        ModelError: it cannot be loaded; the message names the remedy.
        HardwareError: its device is not there.
    """

    def __init__(self, config: Config, max_batch: int | None = None) -> None:
        self._config = config
        self.gpus = gpu_count()
        self.device = choose_device(config.device, self.gpus)
        self.replicas = config.gpu_streams if self.device == "cuda" else config.replicas
        folder = find_model(config)
        if self.device == "cuda":
            preload_cublas()
        try:
            self._whisper = faster_whisper.WhisperModel(
                str(folder),
                device=self.device,
                compute_type=config.compute_type,
                cpu_threads=config.cpu_threads or max(1, config.cores // self.replicas),
                num_workers=self.replicas,
                local_files_only=True,
            )
        except Exception as error:  # the library raises RuntimeError, ValueError and its own
            raise ModelError(
                f"The model in {folder} could not be loaded on {self.device} as "
                f"{config.compute_type} ({one_line(error)}). Fetch or convert it again, or "
                "choose another MODEL_SIZE, DEVICE or COMPUTE_TYPE."
            ) from error

        self.gpu_memory = GpuMemory(config.worker_gpu) if self.device == "cuda" else None
        max_batch = max_batch or (config.max_batch_size if self.device == "cuda" else 1)
        # Of one recording: as many as fill the device, so that alone it is done soonest.
        self._parts_at_once = max(config.replicas, max_batch)
        self._shared = BatchedModel(
            self._whisper.model,
            self._whisper.hf_tokenizer,
            threads=self.replicas,
            max_batch=max_batch,
            gathering=max_batch > 1,
            adaptive=config.encoder_window == "adaptive",
            guard=HallucinationFilter.of(config),
        )

    def _silence(self) -> np.ndarray:
        """A window of features without sound, shape (n_mels, n_frames)."""
        return np.zeros((self._whisper.model.n_mels, FULL_FRAMES), np.float32)

    @property
    def device_threads(self) -> Device:
        """Who makes the calls on the device."""
        return self._shared.device

    @property
    def multilingual(self) -> bool:
        """Whether the model knows more than English."""
        return bool(self._whisper.model.is_multilingual)

    @property
    def translates(self) -> bool:
        """Whether the model was trained to translate into English."""
        return self.multilingual and not any(part in self._config.name for part in NO_TRANSLATION)

    def warm_up(self) -> None:
        """Prove the model, and on a GPU try full batches.

        Raises:
            ModelError: no words came out, or memory is too small for a single window.
        """
        self.prove()
        if self.gpu_memory is not None:
            self.try_full_batch()

    def prove(self) -> None:
        """Run a real recording through detection, decoding and alignment.

        Raises:
            ModelError: no words came out.
        """
        limits = Limits(upload_bytes=1 << 20, duration_s=30)
        with WARM_UP_RECORDING.open("rb") as file:
            waveform = decode(file, limits)
        transcript = self.transcribe(waveform, DecodeOptions(word_timestamps=True), Cancellation())
        if not transcript.text:
            raise ModelError(
                f"The model {self._config.model_size} was loaded and hears nothing in a clear "
                "recording. Fetch or convert it again, or choose another MODEL_SIZE."
            )

    def try_full_batch(self) -> int:
        """Find the batch size by making the largest calls that may occur; return it.

        Raises:
            ModelError: not even one window has room.
        """
        wanted = self.device_threads.largest_batch(Kind.ENCODE)
        try:
            largest = self._shared.try_full_batch(self._silence(), self._config.beam_size)
        except RuntimeError as error:
            raise ModelError(
                f"Not one window of the model {self._config.model_size} has room in the memory of "
                f"the GPU ({one_line(error)}). Lower WORKERS, or choose a smaller MODEL_SIZE or "
                "COMPUTE_TYPE."
            ) from error
        if largest < wanted:
            logger.warning("a call of %d windows has no room; at most %d", wanted, largest)
        return largest

    def check(self, options: DecodeOptions) -> None:
        """Raise `InvalidRequest` when this model cannot do what a request asks."""
        fallback = self._config.translate_fallback
        if options.task == "translate" and not self.translates and not fallback:
            raise InvalidRequest(
                f"The model {self._config.name} was not trained to translate.", param="model"
            )
        if not self.multilingual:
            return
        for language in (options.language, *options.languages):
            if language and self._whisper.hf_tokenizer.token_to_id(f"<|{language}|>") is None:
                raise InvalidRequest(
                    f"The model {self._config.name} does not know the language {language}.",
                    param="language",
                )

    def segments(
        self,
        waveform: np.ndarray,
        options: DecodeOptions,
        cancellation: Cancellation,
        tier: Tier = Tier.REALTIME,
    ) -> Generator[Segment, None, Transcript]:
        """Find speech, then words; each segment comes as soon as it and all before it are there.

        Args:
            waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
            options: the request's choices.
            cancellation: asked before every call; work ends there when the client has left.
            tier: how urgent its calls are.

        Yields:
            The segments in their order. Closing the generator ends the work at the next calls.

        Returns:
            The transcript; without segments when there is no speech, in which case the model
            has not been asked and a language that was to be detected has probability 0.

        Raises:
            InvalidRequest: this model cannot do what the options ask.
            ClientDisconnected: nobody waits for the answer.
        """
        self.check(options)
        if not self.translates:  # the fallback, since it has passed the check
            options = replace(options, task="transcribe")
        return Transcription(
            lambda: self._for_request(tier, cancellation, options.token_scores),
            self.multilingual,
            self._parts_at_once,
            self._config,
            waveform,
            options,
            cancellation,
        ).segments()

    def transcribe(
        self,
        waveform: np.ndarray,
        options: DecodeOptions,
        cancellation: Cancellation,
        tier: Tier = Tier.REALTIME,
    ) -> Transcript:
        """The whole transcript at once; see `segments`."""
        return run_to_end(self.segments(waveform, options, cancellation, tier))

    def _for_request(
        self, tier: Tier, cancellation: Cancellation, scoring: bool
    ) -> faster_whisper.WhisperModel:
        """faster-whisper as one request's own: its calls share the device with the others'."""
        whisper = copy.copy(self._whisper)
        whisper.model = RequestModel(self._shared, tier, cancellation, scoring)
        return whisper
