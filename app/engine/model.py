"""Load the model, self-test it, and run requests on it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import faster_whisper
import numpy as np

from app.audio.decode import decode
from app.audio.limits import Limits
from app.config import Config
from app.engine.batching.batched_model import BatchedModel
from app.engine.batching.device import Device
from app.engine.batching.operation import Kind
from app.engine.batching.request_model import RequestModel
from app.engine.cuda_driver import driver
from app.engine.decoding import Decoding
from app.engine.encoder_window import FULL_FRAMES
from app.engine.features import LogMel
from app.engine.files import ModelError, find_model, one_line
from app.engine.gpu_memory import GpuMemory, MemoryShare
from app.engine.hallucination_filter import HallucinationFilter
from app.engine.hardware import choose_device, gpu_count, preload_cublas
from app.engine.job import Job
from app.engine.kernel_cache import filled_once
from app.engine.options import DecodeOptions
from app.engine.token_cache import TokenCache
from app.engine.transcription import Transcription
from app.errors import InvalidRequest

logger = logging.getLogger(__name__)

# "Unless to be rather cold-hearted and rather selfish is to be ill-disposed": LibriVox, Sense and
# Sensibility, public domain.
WARM_UP_RECORDING = Path(__file__).with_name("warm_up.flac")
# Name parts of models trained without translation: they answer in the spoken language.
NO_TRANSLATION = ("turbo", "distil")


class Model:
    """faster-whisper's model on its device; any number of request threads may call it.

    Args:
        config: the model, its device, and the server's decoding options.
        max_batch: the most windows of one call; None: the setting on a GPU, until
            `try_full_batch` finds that fewer fit, and one on a CPU, where concurrent calls are
            faster than one batch.

    Raises:
        ModelError: the model cannot be loaded; the message names the remedy.
        HardwareError: the configured device is not available.
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

        self._whisper.feature_extractor = LogMel(**self._whisper.feat_kwargs)
        self._whisper.hf_tokenizer = TokenCache(self._whisper.hf_tokenizer)
        self._gpu = driver() if self.device == "cuda" else None
        self.gpu_memory = GpuMemory() if self._gpu else None
        max_batch = max_batch or (config.max_batch_size if self.device == "cuda" else 1)
        # As many parts of a recording as fill the device, so that a lone request finishes soonest.
        self._parts_at_once = max(config.replicas, max_batch)
        self._shared = BatchedModel(
            self._whisper.model,
            self._whisper.hf_tokenizer,
            threads=self.replicas,
            max_batch=max_batch,
            gathering=max_batch > 1,
            adaptive=config.encoder_window == "adaptive",
            hallucination_filter=HallucinationFilter.of(config),
        )

    def _silence(self) -> np.ndarray:
        """Return the features of a silent window, shape (n_mels, n_frames)."""
        return np.zeros((self._whisper.model.n_mels, FULL_FRAMES), np.float32)

    @property
    def device_threads(self) -> Device:
        """Return the device whose threads make the calls."""
        return self._shared.device

    @property
    def multilingual(self) -> bool:
        """Return whether the model supports languages other than English."""
        return bool(self._whisper.model.is_multilingual)

    @property
    def translates(self) -> bool:
        """Return whether the model was trained to translate into English."""
        return self.multilingual and not any(part in self._config.name for part in NO_TRANSLATION)

    def warm_up(self) -> None:
        """Self-test the model, and on a GPU make every kind of call and try full batches.

        Raises:
            ModelError: the self-test gave no text, or not even one window fits in GPU memory.
        """
        self.self_test()
        if self._gpu and self.gpu_memory:
            self.make_rare_calls()
            if self._config.workers_on_gpu == 1:
                self.try_full_batch()
                return
            share = MemoryShare(self._gpu, self.gpu_memory, self._config.workers_on_gpu)
            share.begin()
            self.try_full_batch(share.keeps)

    @classmethod
    def loaded(cls, config: Config, report: Callable[[str], None]) -> Model:
        """Load a model and warm it up.

        Args:
            report: called with a sentence on what is going on.

        Raises: see `Model` and `warm_up`.
        """
        gpu = driver() if choose_device(config.device, gpu_count()) == "cuda" else None
        with filled_once(gpu, report) if gpu else nullcontext():
            model = cls(config)
            model.warm_up()
        return model

    def make_rare_calls(self) -> None:
        """Make each kind of call that the self-test leaves out, before requests do."""
        self._shared.make_rare_calls(self._silence(), self._config.best_of)

    def self_test(self) -> None:
        """Run the self-test: transcribe a bundled recording, with detection and alignment.

        Raises:
            ModelError: the transcript is empty.
        """
        limits = Limits(upload_bytes=1 << 20, duration_s=30)
        with WARM_UP_RECORDING.open("rb") as file:
            waveform = decode(file, limits)
        job = Job(waveform, DecodeOptions(word_timestamps=True))
        if not self.decode(job).result().text:
            raise ModelError(
                f"The model {self._config.model_size} was loaded and hears nothing in a clear "
                "recording. Fetch or convert it again, or choose another MODEL_SIZE."
            )

    def try_full_batch(self, fits: Callable[[], bool] = lambda: True) -> int:
        """Determine the batch size by making the largest possible calls; return it.

        Args:
            fits: called after each trial; returns whether it kept to this worker's share of the
                memory.

        Raises:
            ModelError: not even one window fits in GPU memory.
        """
        config = self._config
        wanted = self.device_threads.largest_batch(Kind.ENCODE)
        calls = max(1, min(self.replicas, config.slots // wanted))
        hypotheses = max(config.beam_size, config.best_of)
        try:
            largest = self._shared.try_full_batch(self._silence(), hypotheses, calls, fits)
        except RuntimeError as error:
            raise ModelError(
                f"Not one window of the model {self._config.model_size} has room in the memory of "
                f"the GPU ({one_line(error)}). Lower WORKERS, or choose a smaller MODEL_SIZE or "
                "COMPUTE_TYPE."
            ) from error
        if largest < wanted:
            logger.warning("batch size reduced to fit memory windows=%d limit=%d", wanted, largest)
        return largest

    def check(self, options: DecodeOptions) -> None:
        """Raise `InvalidRequest` if this model does not support the options."""
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

    def decode(self, job: Job) -> Decoding:
        """Return the decoding of a job, whose options the model supports.

        Decoding starts when its first segment is requested. Without speech the transcript has no
        segments, the model is not called, and a language to be detected has probability 0.
        Iterating raises `ClientDisconnected` once the job is cancelled.
        """
        if not self.translates:  # `check` passed, so the fallback is enabled
            job = replace(job, options=replace(job.options, task="transcribe"))
        transcription = Transcription(
            lambda: self._for_request(job),
            self.multilingual,
            self._parts_at_once,
            self._config,
            job,
        )
        return Decoding(transcription.segments())

    def _for_request(self, job: Job) -> faster_whisper.WhisperModel:
        """Return a faster-whisper model for one job; its calls are batched with others."""
        whisper = copy.copy(self._whisper)
        whisper.model = RequestModel(self._shared, job)
        return whisper
