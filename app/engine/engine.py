"""Run one worker's model for the api: loading, slots, transcription, self-test, drain."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from app.config import Config
from app.engine.admission import Admission, ServiceState
from app.engine.batching.device import is_device_failure
from app.engine.decoding import Decoding
from app.engine.files import ModelError, one_line
from app.engine.gpu_memory import Memory
from app.engine.hardware import HardwareError
from app.engine.job import Job
from app.engine.kernel_cache import LOADING
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.errors import DeviceFailed, EngineFailed, NotReady, ServiceError
from app.observability import metrics

logger = logging.getLogger(__name__)


WATCH_EVERY_S = 1.0
SELF_TEST_AFTER_S = 60.0  # time without a transcript before a self-test
LOAD_AGAIN_AFTER_S = 10.0
FAILURES_LIMIT = 3  # consecutive device failures after which only a new process helps
# Delay of the 503 after a device failure, so that the balancer first sees that this worker is not
# ready. Without the delay it retried the request here while the other workers were full, because a
# worker that fails quickly looks idle: all retries were used up in 0.9 s.
HOLD_S = 1.0


class Engine:
    """Model of one worker and the admission to it.

    The process's lifetime hooks call `start` and drain the admission; request threads call the
    rest.
    The loading thread sets the model before it opens the admission, and requests use the model
    only while they hold a slot, so the model needs no lock.

    Args:
        config: the settings.
        on_fatal: called with a reason when only a new process helps: the device hangs or fails
            repeatedly, or the model cannot be loaded.
        on_ready: called once, when the worker becomes ready.

    Attributes:
        admission: the slots.
    """

    def __init__(
        self,
        config: Config,
        on_fatal: Callable[[str], None] | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self._on_fatal = on_fatal
        self._on_ready = on_ready
        self._config = config
        self.admission = Admission.of(config)
        self._model: Model | None = None
        self._progress = LOADING
        self._failure = ""
        self._proven = time.monotonic()  # time of the last successful transcript
        self._unhealthy_reason = ""  # why the worker is unhealthy; empty: it is healthy
        metrics.watch_admission(self.admission)
        metrics.watch_gpu_memory(lambda: self.gpu_memory)
        metrics.READY.set_function(lambda: float(self.ready))

    def start(self) -> None:
        """Load and self-test the model in the background."""
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    @property
    def state(self) -> str:
        """Return `loading`, `open`, `broken` (no usable model or device) or `draining`."""
        return self.admission.state.value

    @property
    def unready(self) -> str | None:
        """Return why this worker is not ready; None: it is ready."""
        match self.admission.state:
            case ServiceState.LOADING:
                return self._progress
            case ServiceState.BROKEN:
                return self._failure
            case ServiceState.DRAINING:
                return "The worker is stopping."
            case ServiceState.OPEN:
                return self._unhealthy_reason or None

    @property
    def ready(self) -> bool:
        """Return whether the worker passed its last check and is not draining."""
        return self.unready is None

    @property
    def device(self) -> str:
        """Return `cuda` or `cpu`; until the model is loaded, the setting."""
        return self._model.device if self._model else self._config.device

    @property
    def calls_at_once(self) -> int:
        """Return the number of concurrent device calls; 0 until the model is loaded."""
        return self._model.replicas if self._model else 0

    @property
    def gpu_memory(self) -> Memory | None:
        """Return the GPU's memory use; None without a GPU or before the model is loaded."""
        gpu = self._model.gpu_memory if self._model else None
        return gpu.read() if gpu else None

    @property
    def gpu_available(self) -> bool:
        """Return whether this process sees a GPU; False until the model is loaded."""
        return bool(self._model and self._model.gpus)

    @property
    def multilingual(self) -> bool | None:
        """Return whether the model knows more than English; None until it is loaded."""
        return self._model.multilingual if self._model else None

    @property
    def translates(self) -> bool | None:
        """Return whether the model translates into English; None until it is loaded."""
        return self._model.translates if self._model else None

    def check(self, options: DecodeOptions) -> None:
        """Raise `InvalidRequest` if the model does not support the options.

        The caller holds a slot.
        """
        if self._model is None:
            raise NotReady("The model is not loaded.")
        self._model.check(options)

    def decode(self, job: Job) -> Decoding:
        """Return the decoding of a job; the caller holds a slot until it is closed.

        Decoding starts when its first segment is requested. Iterating raises:

            ClientDisconnected: the client disconnected.
            DeviceFailed: the device failed; another worker may succeed. The cause is logged.
            EngineFailed: the library failed. The cause is logged.
        """
        if self._model is None:
            raise NotReady("The model is not loaded.")
        decoding = self._model.decode(job)
        decoding.on_success, decoding.translate = self._trust, self._failure_of
        return decoding

    def _failure_of(self, error: Exception) -> Exception:
        """Return the error to report for one that decoding raised."""
        if isinstance(error, ServiceError):
            return error
        logger.error("decoding failed", exc_info=error)
        if is_device_failure(error):
            self._unhealthy_reason = f"The device failed: {one_line(error)}"
            time.sleep(HOLD_S)
            return DeviceFailed("The worker failed. Send the request again.")
        return EngineFailed("The transcription failed inside the service.")

    def _load(self) -> None:
        try:
            model = Model.loaded(self._config, self._report)
        except (ModelError, HardwareError) as error:
            self._fail(str(error))
            self._try_again()
        except Exception as error:  # otherwise this thread would die unnoticed
            logger.exception("model loading failed")
            self._fail(f"The model could not be loaded: {one_line(error)}")
            self._try_again()
        else:
            self._model = model
            if self._on_fatal is not None:
                threading.Thread(target=self._watch, name="watch-device", daemon=True).start()
            self.admission.open()
            if self._on_ready is not None:
                self._on_ready()
            logger.info(
                "worker ready model=%s device=%s concurrent_calls=%d",
                self._config.name, model.device, model.replicas,
            )  # fmt: skip

    def _report(self, progress: str) -> None:
        """Show what the loading thread does, as the reason for not being ready."""
        self._progress = progress

    def _try_again(self) -> None:
        """Keep the reason visible for a while, then ask for a new process.

        By then a disk may be back or memory free.
        """
        if self._on_fatal is not None:
            time.sleep(LOAD_AGAIN_AFTER_S)
            self._on_fatal("The model could not be loaded; trying again.")

    def _fail(self, reason: str, message: str = "The model could not be loaded.") -> None:
        """Refuse all requests; the reason is for operators, the message for clients."""
        logger.error("%s", reason)
        self._failure = reason
        self.admission.fail(message)

    def _watch(self) -> None:
        """Watch the device until a call hangs or too many fail in a row; self-test when needed."""
        assert self._model is not None
        assert self._on_fatal is not None
        limit_s = self._config.device_call_limit_s
        device = self._model.device_threads
        self_test = threading.Thread(target=self._self_test)
        while device.longest_call_s() < limit_s and device.failures < FAILURES_LIMIT:
            silent_s = time.monotonic() - self._proven
            is_due = self._unhealthy_reason or silent_s > SELF_TEST_AFTER_S
            if is_due and not self_test.is_alive():
                # On its own thread: this one must notice a call that hangs.
                self_test = threading.Thread(target=self._self_test, name="self-test", daemon=True)
                self_test.start()
            time.sleep(WATCH_EVERY_S)
        if device.failures >= FAILURES_LIMIT:
            reason = f"The device failed {device.failures} times in a row."
        else:
            reason = f"A call on the device has not returned for {limit_s:g} s."
        self._fail(reason, "The worker failed. Send the request again.")
        self._on_fatal(reason)

    def _self_test(self) -> None:
        """Run the self-test; while it fails the worker is not ready."""
        assert self._model is not None
        try:
            self._model.self_test()
        except Exception as error:  # any failure here would hit a request too
            reason = f"The worker cannot transcribe a recording of its own: {one_line(error)}"
            self._unhealthy_reason = reason
            logger.error("%s", reason)
        else:
            self._trust()

    def _trust(self) -> None:
        """Record a successful transcript."""
        self._proven = time.monotonic()
        self._unhealthy_reason = ""
