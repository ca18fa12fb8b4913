"""Call NVIDIA's driver library, through ctypes, which releases the interpreter lock.

CTranslate2's own count of the GPUs holds that lock while the driver initializes, which takes up to
a minute without a persistent driver; Gunicorn would kill the worker. It also has no call that
copies memory within the device.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import uuid
from collections.abc import Sequence

LIBRARY = "libcuda.so.1"
# From cuda.h: error codes, device attributes, pool attributes, the stream of the calling thread.
NO_DEVICE = 100
MAJOR, MINOR = 75, 76
RESERVED_NOW, RESERVED_HIGH = 5, 6
THREAD_STREAM = ctypes.c_void_p(2)


class DriverError(RuntimeError):
    """Failed call; the message is worded as CTranslate2's, from which failures are recognized."""

    def __init__(self, function: str, code: int, reason: str) -> None:
        super().__init__(f"CUDA failed with error {reason} ({function})")
        self.code = code


class Driver:
    """Driver library and the first GPU that this process may use.

    Any thread may call any method; the first that needs a context retains the GPU's primary
    context, which CTranslate2 also uses.

    Raises:
        OSError: there is no driver.
        DriverError: it does not initialize.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._context: ctypes.c_void_p | None = None
        self._lock = threading.Lock()  # guards the context
        self._call("cuInit", 0)

    def count(self) -> int:
        """Return the number of GPUs that this process may use."""
        number = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(number))
        return number.value

    def version(self) -> int:
        """Return the newest CUDA version that the driver supports, as 12080 for 12.8."""
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        return number.value

    def architecture(self) -> str:
        """Return the GPU's compute capability, as `sm_90`."""
        numbers = []
        for attribute in (MAJOR, MINOR):
            number = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(number), attribute, self._device())
            numbers.append(str(number.value))
        return "sm_" + "".join(numbers)

    def uuid(self) -> str:
        """Return the identifier of the GPU or MIG instance, without its prefix."""
        octets = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetUuid_v2", ctypes.byref(octets), self._device())
        return str(uuid.UUID(bytes=bytes(octets)))

    def total_bytes(self) -> int:
        """Return the size of the GPU's memory."""
        size = ctypes.c_size_t()
        self._call("cuDeviceTotalMem_v2", ctypes.byref(size), self._device())
        return size.value

    def reserved_bytes(self) -> tuple[int, int]:
        """Return this process's pool memory: now, and at most since `forget_peak`.

        CTranslate2's `cuda_malloc_async` allocates from this pool.
        """
        return self._reserved(RESERVED_NOW), self._reserved(RESERVED_HIGH)

    def forget_peak(self) -> None:
        """Reset the maximum that `reserved_bytes` returns."""
        zero = ctypes.c_uint64(0)
        self._call("cuMemPoolSetAttribute", self._pool(), RESERVED_HIGH, ctypes.byref(zero))

    def join(self, pieces: Sequence[int], n_bytes: int) -> DeviceMemory:
        """Return new device memory with copies of pieces of device memory, one after another.

        Args:
            pieces: addresses in the device's memory.
            n_bytes: bytes of each piece.
        """
        self._enter()
        address = ctypes.c_uint64()
        size = ctypes.c_size_t(n_bytes * len(pieces))
        self._call("cuMemAllocAsync", ctypes.byref(address), size, THREAD_STREAM)
        memory = DeviceMemory(self, address.value)
        for number, piece in enumerate(pieces):
            target = ctypes.c_uint64(address.value + number * n_bytes)
            source = ctypes.c_uint64(piece)
            length = ctypes.c_size_t(n_bytes)
            self._call("cuMemcpyDtoDAsync_v2", target, source, length, THREAD_STREAM)
        self._call("cuStreamSynchronize", THREAD_STREAM)
        return memory

    def free(self, address: int) -> None:
        """Return memory of `join` to the pool."""
        self._enter()
        self._call("cuMemFreeAsync", ctypes.c_uint64(address), THREAD_STREAM)

    def _reserved(self, attribute: int) -> int:
        size = ctypes.c_uint64()
        self._call("cuMemPoolGetAttribute", self._pool(), attribute, ctypes.byref(size))
        return size.value

    def _pool(self) -> ctypes.c_void_p:
        self._enter()
        pool = ctypes.c_void_p()
        self._call("cuDeviceGetDefaultMemPool", ctypes.byref(pool), self._device())
        return pool

    def _device(self) -> ctypes.c_int:
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        return device

    def _enter(self) -> None:
        """Make the GPU's context current on this thread."""
        with self._lock:
            if self._context is None:
                context = ctypes.c_void_p()
                self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device())
                self._context = context
        self._call("cuCtxSetCurrent", self._context)

    def _call(self, function: str, *arguments: object) -> None:
        code = self._library[function](*arguments)
        if code:
            reason = ctypes.c_char_p()
            self._library["cuGetErrorString"](code, ctypes.byref(reason))
            text = (reason.value or b"unknown error").decode()
            raise DriverError(function, code, text)


class DeviceMemory:
    """Device memory that is freed with this object."""

    def __init__(self, driver: Driver, address: int) -> None:
        self._driver = driver
        self.address = address

    def __del__(self) -> None:
        self._driver.free(self.address)


@functools.cache
def driver() -> Driver | None:
    """Return the driver, initialized once; None: there is none, or it shows no GPU.

    Raises:
        DriverError: a driver is installed and does not initialize.
    """
    try:
        return Driver()
    except OSError:
        return None
    except DriverError as error:
        if error.code == NO_DEVICE:
            return None
        raise
