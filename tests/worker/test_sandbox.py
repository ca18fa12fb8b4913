"""Uploads decoded in processes of their own: the same samples, and no harm beyond one request."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.audio.decode import decode
from app.audio.limits import SAMPLE_RATE, Limits
from app.audio.sandbox import confinement
from app.audio.sandbox.client import ENVIRONMENT, Sandbox
from app.config import ROOT
from app.engine.cancellation import Cancellation
from app.errors import ClientDisconnected, InvalidRequest, NoDecoder, ServiceError, TooLarge
from app.observability import metrics
from app.process import children
from tests.support.processes import alive, descendants, resident
from tests.support.recordings import DATA, NO_LIMITS, encode, wav_header
from tests.support.waiting import LIMIT_S, until

FILES = sorted(path for path in DATA.iterdir() if path.is_file())
FLAC = (DATA / "tone_440hz_5s.flac").read_bytes()
LOG = (1, "info", "text")


@contextmanager
def sandbox(limits: Limits = NO_LIMITS, timeout_s: float = 60) -> Iterator[Sandbox]:
    started = Sandbox(limits, timeout_s, LOG)
    started.start()
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with sandbox() as started:
        yield started


def sent(to: Sandbox, content: bytes) -> np.ndarray:
    return to.decode(io.BytesIO(content), Cancellation())


def fork_server_of(one: Sandbox) -> int:
    assert one._fork_server is not None
    return one._fork_server.process.pid


@contextmanager
def long_upload() -> Iterator[io.BufferedRandom]:
    """14 h of a-law that take no room on the disk, and seconds to decode."""
    head = bytearray(wav_header(400_000_000, rate=8_000))
    head[20:22] = (6).to_bytes(2, "little")
    head[28:36] = (
        (8_000).to_bytes(4, "little") + (1).to_bytes(2, "little") + (8).to_bytes(2, "little")
    )
    with tempfile.TemporaryFile() as file:
        file.write(head)
        file.truncate(len(head) + 400_000_000)
        yield file  # type: ignore[misc]


class Decoding(threading.Thread):
    """A long decode in progress, the decoder's process, and what becomes of it."""

    def __init__(self, to: Sandbox) -> None:
        super().__init__()
        self._to = to
        self.client = Cancellation()
        self.error: BaseException | None = None
        others = busy(to)
        self.start()
        assert until(lambda: busy(to) - others)
        (self.pid,) = busy(to) - others

    def run(self) -> None:
        try:
            with long_upload() as upload:
                self._to.decode(upload, self.client)
        except BaseException as error:
            self.error = error


def busy(one: Sandbox) -> set[int]:
    """The decoders that are well into their work."""
    return {pid for pid in children(fork_server_of(one)) if samples_bytes(pid) > 1_000_000}


def samples_bytes(pid: int) -> int:
    """Return how much a decoder has written."""
    with contextlib.suppress(OSError):  # it ends meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(descriptor).startswith("/memfd:samples"):
                return descriptor.stat().st_size
    return 0


def ended(why: str) -> float:
    return metrics.DECODERS_ENDED.labels(why)._value.get()  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_decoded_as_in_process_to_the_last_bit(shared, path):
    content = path.read_bytes()
    found = outcome(lambda: sent(shared, content))
    expected = outcome(lambda: decode(io.BytesIO(content), NO_LIMITS))

    if isinstance(expected, np.ndarray):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def outcome(decoding: Callable[[], np.ndarray]) -> Any:
    """The waveform, or the answer that a client gets."""
    try:
        return decoding()
    except ServiceError as error:
        return error.status, error.body()


def test_upload_on_disk_is_decoded_and_left_where_it_was(shared):
    """A large one goes by its descriptor, which the decoder can only read."""
    samples = np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE * 30).astype(np.float32)
    content = encode(samples, "24bit_48k.wav")
    with tempfile.SpooledTemporaryFile(max_size=2 << 20) as file:
        file.write(content)
        found = shared.decode(file, Cancellation())

        file.seek(0)
        assert file.read() == content
    assert len(content) > 2 << 20
    np.testing.assert_array_equal(found, decode(io.BytesIO(content), NO_LIMITS))


def test_plain_wav_needs_no_decoder():
    idle = Sandbox(NO_LIMITS, 60, LOG)

    assert sent(idle, (DATA / "austen_0890.wav").read_bytes()).size
    assert idle._fork_server is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_decoder_that_crashes_costs_one_request(shared, number):
    """The client hears that its file is at fault; others are decoded meanwhile and after."""
    before = ended("died")
    first, second = Decoding(shared), Decoding(shared)
    os.kill(first.pid, number)
    first.join(LIMIT_S)

    assert isinstance(first.error, InvalidRequest)
    assert first.error.param == "file"
    assert ended("died") == before + 1
    assert second.is_alive()
    assert sent(shared, FLAC).size == 5 * SAMPLE_RATE
    second.client.cancel()
    second.join(LIMIT_S)


def test_decoder_that_hangs_is_ended_at_its_limit():
    before = ended("time")
    with sandbox(timeout_s=2) as limited:
        hanging = Decoding(limited)
        os.kill(hanging.pid, signal.SIGSTOP)
        hanging.join(LIMIT_S)

        assert isinstance(hanging.error, InvalidRequest)
        assert ended("time") == before + 1
        assert until(lambda: not alive(hanging.pid))
        assert sent(limited, FLAC).size


def test_processor_time_is_limited_too():
    """Kept by the kernel, also where the worker's own clock were wrong."""
    before = ended("time")
    with sandbox(timeout_s=1) as limited:
        decoding = Decoding(limited)
        limits = Path(f"/proc/{decoding.pid}/limits").read_text()
        decoding.join(LIMIT_S)

    assert "Max cpu time              1 " in limits
    assert isinstance(decoding.error, InvalidRequest)
    assert ended("time") == before + 1


def test_client_that_leaves_ends_its_decoder(shared):
    decoding = Decoding(shared)
    decoding.client.cancel()
    decoding.join(LIMIT_S)

    assert isinstance(decoding.error, ClientDisconnected)
    assert until(lambda: not alive(decoding.pid))


def test_lost_fork_server_is_a_503_and_the_next_upload_has_a_new_one():
    with sandbox() as harmed:
        decoding = Decoding(harmed)
        os.kill(fork_server_of(harmed), signal.SIGKILL)
        decoding.join(LIMIT_S)

        assert isinstance(decoding.error, NoDecoder)
        assert until(lambda: not alive(decoding.pid)), "decoders die with their fork server"
        time.sleep(1)
        assert sent(harmed, FLAC).size


def test_fork_server_that_hangs_is_a_503_and_is_replaced(monkeypatch):
    monkeypatch.setattr("app.audio.sandbox.client.START_S", 5.0)
    monkeypatch.setattr("app.audio.sandbox.client.STOP_S", 0.5)
    with sandbox() as harmed:
        sent(harmed, FLAC)
        stopped = fork_server_of(harmed)
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(NoDecoder):
            sent(harmed, FLAC)

        assert not alive(stopped)
        assert sent(harmed, FLAC).size
        assert fork_server_of(harmed) != stopped


def test_fork_server_that_cannot_be_started_is_a_503(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    lost = Sandbox(NO_LIMITS, 60, LOG)

    with pytest.raises(NoDecoder) as refusal:
        sent(lost, FLAC)

    assert refusal.value.status == 503
    assert str(tmp_path) not in refusal.value.message


def test_decoder_has_no_rights_and_no_one_elses_files(shared):
    """As the kernel shows it, in the middle of a decode."""
    decoding = Decoding(shared)
    status = Path(f"/proc/{decoding.pid}/status").read_text()
    limits = Path(f"/proc/{decoding.pid}/limits").read_text()
    environment = Path(f"/proc/{decoding.pid}/environ").read_bytes()
    first_to_go = Path(f"/proc/{decoding.pid}/oom_score_adj").read_text()
    descriptors = {
        os.readlink(one).split(":")[0] for one in Path(f"/proc/{decoding.pid}/fd").iterdir()
    }
    decoding.client.cancel()
    decoding.join(LIMIT_S)

    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "Max open files            0 " in limits
    assert "Max core file size        0 " in limits
    names = {line.split(b"=")[0].decode() for line in environment.split(b"\0") if line}
    assert names <= {*ENVIRONMENT, "OPENBLAS_NUM_THREADS"}, "no keys"
    assert int(first_to_go) == 500
    assert len(descriptors - {"/dev/null", "/memfd", "socket"}) == 1, "its upload"


LAYERS = {
    "seccomp": "confinement.give_up_privileges(); confinement.filter_of_calls()()",
    "Landlock": "confinement.give_up_privileges(); confinement.close_the_files()",
}
ATTEMPTS = {
    "a file": "os.open('/etc/hostname', os.O_RDONLY)",
    "a new file": "os.open('/tmp/made-by-a-decoder', os.O_CREAT | os.O_WRONLY)",
    "a TCP connection": "tcp.connect(('127.0.0.1', 9))",
    "a TCP socket": "socket.socket()",
    "another socket": "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a process": "os.fork()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a signal": "os.kill(os.getppid(), 0)",
    "executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
}
# What Landlock refuses, and since which version of it.
LANDLOCK = {
    "a file": 1, "a new file": 1, "a program": 1, "a TCP connection": 4, "a signal": 6,
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_refuses_by_itself(layer):
    """Attempts of a program that has taken over a decoder; done before, they succeed."""
    if layer == "Landlock" and not landlock():
        pytest.skip("this kernel has no Landlock")
    script = f"""
import errno, mmap, os, signal, socket
from app.audio.sandbox import confinement
tcp = socket.socket()
{LAYERS[layer]}
for name, attempt in {ATTEMPTS!r}.items():
    try:
        done = eval(attempt)
        if name == "a process" and not done:
            os._exit(0)
        print(name, "succeeds", flush=True)
    except OSError as error:
        print(name, errno.errorcode[error.errno], flush=True)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in shown.splitlines()}

    assert set(found) == set(ATTEMPTS)
    refused = {name for name, how in found.items() if how in ("EPERM", "EACCES")}
    if layer == "Landlock":
        assert refused == {name for name, since in LANDLOCK.items() if since <= landlock()}
    else:
        assert refused == set(ATTEMPTS)


def landlock() -> int:
    """The kernel's version of Landlock; 0: it has none."""
    asked = (confinement.LANDLOCK_CREATE_RULESET, None, 0, confinement.LANDLOCK_VERSION)
    try:
        return confinement._call("syscall", *asked)
    except OSError:
        return 0


def test_refused_layer_is_logged_and_the_others_hold():
    """A kernel that refuses Landlock, as a filter of system calls shows it here."""
    number = confinement.LANDLOCK_CREATE_RULESET
    script = f"""
import ctypes, struct
from app.observability import log
from app.audio.sandbox import confinement, fork_server
log.configure(1, "info", "text")
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x50000 | {errno.ENOSYS}),
         (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("=HBBI", *line) for line in lines)
kept = ctypes.create_string_buffer(code, len(code))
confinement.give_up_privileges()
program = confinement._Program(4, ctypes.addressof(kept))
confinement._call("prctl", 22, 2, ctypes.byref(program), 0, 0)
fork_server.confine()
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout

    assert "decoders run without Landlock: Function not implemented" in shown
    assert "confined by limits, no new privileges, seccomp\n" in shown


def test_small_file_of_more_audio_than_allowed_is_refused():
    """Ten minutes of silence, where one minute is allowed."""
    content = encode(np.zeros(SAMPLE_RATE * 600, np.float32), "opus", rate=8_000)
    with sandbox(Limits(1 << 30, 60)) as limited, pytest.raises(TooLarge):
        sent(limited, content)

    assert len(content) < 600_000


def test_table_that_asks_for_gigabytes_is_refused(shared):
    """60 million samples of one byte, in a file of 1.3 kB: in process its index takes 2.1 GB."""
    content = bytearray(encode(np.zeros(SAMPLE_RATE, np.float32), "m4a"))
    many = (60_000_000).to_bytes(4, "big")
    for table, offset, value in (
        (b"stsz", 8, (1).to_bytes(4, "big") + many), (b"stts", 12, many), (b"stsc", 16, many),
    ):  # fmt: skip
        begin = content.index(table) + offset
        content[begin : begin + len(value)] = value
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(outcome(lambda: sent(shared, bytes(content))))
    )
    peak = 0
    asking.start()
    while asking.is_alive():
        peak = max([peak, *map(resident, children(fork_server_of(shared)))])

    (answer,) = answers
    assert answer.size == 0 if isinstance(answer, np.ndarray) else answer[0] == 400
    assert peak < confinement.MEMORY_BYTES + (100 << 20)


@pytest.mark.parametrize(
    ("channels", "rate", "bits"),
    [(65_535, 48_000, 16), (64, 4_294_967_295, 32), (1, 0, 16), (0, 16_000, 16), (2, 1, 8)],
)
def test_header_that_claims_anything_is_answered(shared, channels, rate, bits):
    head = bytearray(wav_header(0xFFFFFF00))
    head[22:24] = channels.to_bytes(2, "little")
    head[24:28] = rate.to_bytes(4, "little")
    head[34:36] = bits.to_bytes(2, "little")
    found = outcome(lambda: sent(shared, bytes(head) + bytes(50_000)))

    assert isinstance(found, np.ndarray) or found[0] in (400, 413)
    assert sent(shared, FLAC).size


def test_decoders_end_with_their_worker():
    """Also with a process that is killed, which cannot tell them to end."""
    script = (
        "import time; from app.audio.limits import Limits\n"
        "from app.audio.sandbox.client import Sandbox\n"
        "one = Sandbox(Limits(1 << 30, 60), 60, (1, 'info', 'text')); one.start()\n"
        "print('started', flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    with worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        assert until(lambda: len(descendants(worker.pid)) == 2), "fork server and spare decoder"
        below = descendants(worker.pid)
        worker.kill()

        assert until(lambda: not any(map(alive, below)))


def test_forgotten_sandbox_leaves_no_process():
    forgotten = Sandbox(NO_LIMITS, 60, LOG)
    sent(forgotten, FLAC)
    fork_server = fork_server_of(forgotten)
    del forgotten
    gc.collect()

    assert not alive(fork_server)


def test_hundred_decodes_leave_nothing_behind(shared):
    sent(shared, FLAC)
    fork_server = fork_server_of(shared)
    assert until(lambda: len(children(fork_server)) == 1), "the last one is reaped, the next forked"
    before = descriptors("self"), descriptors(fork_server)

    threads = [
        threading.Thread(target=lambda: [sent(shared, FLAC) for _ in range(25)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert until(lambda: len(children(fork_server)) == 1), "only the one that waits for the next"
    assert until(lambda: (descriptors("self"), descriptors(fork_server)) == before)


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_long_file_holds_nobody_up(shared):
    decoding = Decoding(shared)
    for _ in range(5):
        sent(shared, FLAC)

    assert decoding.is_alive()
    decoding.client.cancel()
    decoding.join(LIMIT_S)
