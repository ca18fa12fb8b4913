"""The engine: all that the api may call. Loading, slots, transcription, drain."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

import numpy as np

from app.config import Config
from app.engine.admission import Admission, ServiceState, Tier
from app.engine.batching.device import is_device_failure
from app.engine.cancellation import Cancellation
from app.engine.files import ModelError, one_line
from app.engine.gpu_memory import Memory
from app.engine.hardware import HardwareError
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.engine.results import Segment, Transcript, run_to_end
from app.errors import DeviceFailed, EngineFailed, NotReady, ServiceError
from app.observability import metrics

logger = logging.getLogger(__name__)


WATCH_EVERY_S = 1.0
PROVE_AFTER_S = 60.0  # without a transcript, after which a recording of our own is transcribed
LOAD_AGAIN_AFTER_S = 10.0
FAILURES_LIMIT = 3  # device failures in a row after which nothing but a new process helps
# A request whose call failed is answered (503) after so many seconds, when the balancer has seen
# that this worker is not ready. At once, and it would come back here again and again while the
# others are full, since who fails quickest looks idle: all its tries were used up in 0.9 s.
HOLD_S = 1.0


class Engine:
    """One worker's model and the right to use it.

    `start` and `drain` are called by the process's lifetime hooks, everything else by request
    threads. The loading thread writes the model and then opens the admission, and nobody
    reads the model without a slot; so it needs no lock.

    Args:
        config: the settings.
        give_up: called with a sentence when the device hangs or has failed for good: only a new
            process helps.
        on_ready: called once, when the worker could transcribe for the first time.
    """

    def __init__(
        self,
        config: Config,
        give_up: Callable[[str], None] | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self._give_up = give_up
        self._on_ready = on_ready
        self._config = config
        self._admission = Admission.of(config)
        self._model: Model | None = None
        self._failure = ""
        self._proven = time.monotonic()  # when the last transcript was made
        self._doubt = ""  # why the last call failed that the device is to blame for
        metrics.watch_admission(self._admission)
        metrics.watch_gpu_memory(lambda: self.gpu_memory)
        metrics.READY.set_function(lambda: float(self.ready))

    def start(self) -> None:
        """Load and try the model in the background; the process answers meanwhile."""
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    @property
    def state(self) -> str:
        """`loading`, `open`, `broken` (the model cannot be loaded) or `draining`."""
        return self._admission.house.value

    @property
    def unready(self) -> str | None:
        """Why this worker could not transcribe now; None: it can."""
        match self._admission.house:
            case ServiceState.LOADING:
                return "The model is loading."
            case ServiceState.BROKEN:
                return self._failure
            case ServiceState.DRAINING:
                return "The worker is stopping."
            case ServiceState.OPEN:
                return self._doubt or None

    @property
    def ready(self) -> bool:
        """A recording went through the model, and the worker is not stopping."""
        return self.unready is None

    @property
    def device(self) -> str:
        """`cuda` or `cpu`; what was asked for until the model is loaded."""
        return self._model.device if self._model else self._config.device

    @property
    def calls_at_once(self) -> int:
        """Calls on the device side by side; 0 until the model is loaded."""
        return self._model.replicas if self._model else 0

    @property
    def gpu_memory(self) -> Memory | None:
        """The memory of this process's GPU; None without one, or before the model is loaded."""
        gpu = self._model.gpu_memory if self._model else None
        return gpu.read() if gpu else None

    @property
    def gpu_available(self) -> bool:
        """Whether this process sees a GPU; known once the model is loaded."""
        return bool(self._model and self._model.gpus)

    def admit(self, cancellation: Cancellation) -> AbstractContextManager[float]:
        """A slot for the length of a `with` block; see `Admission.slot`."""
        return self._admission.slot(cancellation)

    def check(self, options: DecodeOptions) -> None:
        """Raise `InvalidRequest` when the model cannot do what a request asks; the caller holds
        a slot."""
        if self._model is None:
            raise NotReady("The model is not loaded.")
        self._model.check(options)

    def segments(
        self,
        waveform: np.ndarray,
        options: DecodeOptions,
        cancellation: Cancellation,
        tier: Tier = Tier.REALTIME,
    ) -> Generator[Segment, None, Transcript]:
        """Decode one request; the caller holds a slot until the generator has ended.

        Args:
            waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.

        Yields:
            The segments in their order, each as soon as it is known. Nothing happens before the
            first is drawn; closing the generator ends the work.

        Returns:
            The transcript they make.

        Raises:
            InvalidRequest: the model cannot do what the options ask.
            ClientDisconnected: the client left.
            DeviceFailed: the device failed; another worker's may not.
            EngineFailed: the library failed. The cause is in the log, both times.
        """
        if self._model is None:
            raise NotReady("The model is not loaded.")
        try:
            transcript = yield from self._model.segments(waveform, options, cancellation, tier)
        except ServiceError:
            raise
        except Exception as error:
            logger.exception("decoding failed")
            if is_device_failure(error):
                self._doubt = f"The device failed: {one_line(error)}"
                time.sleep(HOLD_S)
                raise DeviceFailed("The worker failed. Send the request again.") from None
            raise EngineFailed("The transcription failed inside the service.") from None
        self._trust()
        return transcript

    def transcribe(
        self,
        waveform: np.ndarray,
        options: DecodeOptions,
        cancellation: Cancellation,
        tier: Tier = Tier.REALTIME,
    ) -> Transcript:
        """The whole transcript at once; see `segments`."""
        return run_to_end(self.segments(waveform, options, cancellation, tier))

    def close(self) -> None:
        """Refuse new requests; those inside go on. Safe to call in a signal handler."""
        self._admission.close()

    def drain(self, timeout_s: float) -> int:
        """Refuse new requests, wait for the others; returns how many were left behind."""
        return self._admission.drain(timeout_s)

    def _load(self) -> None:
        try:
            model = Model(self._config)
            model.warm_up()
        except (ModelError, HardwareError) as error:
            self._fail(str(error))
            self._try_again()
        except Exception as error:  # nothing else tells anyone that this thread died
            logger.exception("loading the model failed")
            self._fail(f"The model could not be loaded: {one_line(error)}")
            self._try_again()
        else:
            self._model = model
            if self._give_up is not None:
                threading.Thread(target=self._watch, name="watch-device", daemon=True).start()
            self._admission.open()
            if self._on_ready is not None:
                self._on_ready()
            logger.info(
                "ready: model %s on %s, %d decodes side by side",
                self._config.name, model.device, model.replicas,
            )  # fmt: skip

    def _try_again(self) -> None:
        """Let it be seen why, and then have a fresh process try: a disk may have come back, or
        memory been freed."""
        if self._give_up is not None:
            time.sleep(LOAD_AGAIN_AFTER_S)
            self._give_up("The model could not be loaded; trying again.")

    def _fail(self, reason: str, told: str = "The model could not be loaded.") -> None:
        """Take no more requests: the reason is for operators, what is told for clients."""
        logger.error("%s", reason)
        self._failure = reason
        self._admission.fail(told)

    def _watch(self) -> None:
        """Look at the device until it is beyond help: a call that hangs, failures in a row."""
        assert self._model is not None
        assert self._give_up is not None
        limit_s = self._config.device_call_limit_s
        device = self._model.device_threads
        prover = threading.Thread(target=self._prove)
        while device.longest_call_s() < limit_s and device.failures < FAILURES_LIMIT:
            silent_s = time.monotonic() - self._proven
            if (self._doubt or silent_s > PROVE_AFTER_S) and not prover.is_alive():
                # On a thread of its own: this one must see a call that hangs.
                prover = threading.Thread(target=self._prove, name="prove-model", daemon=True)
                prover.start()
            time.sleep(WATCH_EVERY_S)
        if device.failures >= FAILURES_LIMIT:
            reason = f"The device failed {device.failures} times in a row."
        else:
            reason = f"A call on the device has not returned for {limit_s:g} s."
        self._fail(reason, "The worker failed. Send the request again.")
        self._give_up(reason)

    def _prove(self) -> None:
        """Transcribe a recording of our own; while that fails the worker is not ready."""
        assert self._model is not None
        try:
            self._model.prove()
        except Exception as error:  # whatever it is, a request would meet it too
            self._doubt = f"The worker cannot transcribe a recording of its own: {one_line(error)}"
            logger.error("%s", self._doubt)
        else:
            self._trust()

    def _trust(self) -> None:
        """A transcript was made."""
        self._proven = time.monotonic()
        self._doubt = ""
