"""What takes long to show: an hour of audio beside live windows, and a thousand fickle clients.

    make endurance                              all three; about 40 minutes on 2 cores
    python -m tests.measure.endurance hour --minutes 10
    python -m tests.measure.endurance leavers --requests 200
    python -m tests.measure.endurance life --wall-minutes 5

`hour`: one long file in the deferred tier while clients send windows of 2 s in the realtime
tier; prints how much later the windows' answers come than without it, beside the time of one call
on the device, and how much memory the worker takes for it and gives back.

`leavers`: of many requests half close their connection at a random moment; prints what is left
behind. `life`: a long life in a short time, see tests/measure/life.py. Each starts workers of its
own, and the exit status is 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import numpy as np

from tests.measure.life import life
from tests.support import models
from tests.support.client import TRANSCRIPTIONS
from tests.support.processes import resident
from tests.support.recordings import SAMPLE_RATE, encode, long_recording, recording, wav
from tests.support.stack import Stack
from tests.support.waiting import until

PATIENCE_S = 1800
WINDOW_EVERY_S = 1.0
GROWTH_LIMIT = 600 << 20
LEFT_OVER_LIMIT = 150 << 20  # allocators keep some


def started(folder: str, **settings: str) -> AbstractContextManager[Stack]:
    """One worker behind its balancer, with a queue."""
    return Stack.started(
        Path(folder), WORKERS="1", MODEL_SIZE=str(models.tiny_en()), MODEL_NAME="tiny.en",
        FAIL_FAST_WHEN_BUSY="false", QUEUE_TIMEOUT_S="600", MAX_QUEUE_SIZE="2000", **settings,
    )  # fmt: skip


def worker_pid(stack: Stack) -> int:
    """The process that holds the model: the largest of the pool."""
    return max(stack.processes(), key=resident)


def post(stack: Stack, content: bytes, tier: str) -> httpx.Response:
    return httpx.post(
        stack.url + TRANSCRIPTIONS,
        data={"model": "whisper-1", "response_format": "verbose_json"},
        files={"file": ("audio", content)},
        headers={"X-Transcription-Tier": tier},
        timeout=PATIENCE_S,
    )


def windows(stack: Stack, until_done: threading.Event, most: int) -> list[float]:
    """Answer times of 2 s windows, one every second."""
    clip = wav(recording("austen_0890.wav").waveform()[: 2 * SAMPLE_RATE])
    waits: list[float] = []
    for _ in range(most):
        if until_done.is_set():
            break
        began = time.monotonic()
        post(stack, clip, "realtime").raise_for_status()
        waits.append(time.monotonic() - began)
        time.sleep(max(0.0, WINDOW_EVERY_S - waits[-1]))
    return waits


def call_seconds(stack: Stack) -> float:
    """The mean of all calls on the device."""
    total = stack.metric(1, "transcription_device_call_seconds_sum")
    return total / max(1.0, stack.metric(1, "transcription_device_call_seconds_count"))


def longest_call(stack: Stack, share: float = 0.95) -> float:
    """The bucket's edge below which that share of the generate calls lies, in seconds."""
    text = httpx.get(stack.worker_url(1) + "/metrics").text
    name = 'transcription_device_call_seconds_bucket{kind="generate",le="'
    lines = [line for line in text.splitlines() if line.startswith(name)]
    counts = [(line.split('le="')[1].split('"')[0], float(line.split()[-1])) for line in lines]
    return next(float(edge) for edge, count in counts if count >= share * counts[-1][1])


def hour(minutes: float) -> bool:
    """The long file beside live windows."""
    spoken = long_recording(min(60 * minutes, 600))
    samples = np.tile(
        spoken.samples, max(1, round(60 * minutes * SAMPLE_RATE / spoken.samples.size))
    )
    content = encode(samples, "opus")
    expected = len(spoken.spans) * (samples.size // spoken.samples.size)
    print(
        f"{samples.size / SAMPLE_RATE / 60:.0f} minutes of speech, {len(content) >> 20} MiB of Opus"
    )
    done = threading.Event()
    with tempfile.TemporaryDirectory() as folder, started(folder) as stack:
        pid = worker_pid(stack)
        alone = windows(stack, threading.Event(), 60)
        before = peak = resident(pid)
        answer: list[httpx.Response] = []

        def send() -> None:
            try:
                answer.append(post(stack, content, "deferred"))
            finally:
                done.set()

        began = time.monotonic()
        sender = threading.Thread(target=send)
        sender.start()
        peaks: list[int] = []

        def watch() -> None:
            while not done.wait(0.05):
                peaks.append(resident(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        beside = windows(stack, done, 10_000)
        sender.join()
        watcher.join()
        took = time.monotonic() - began
        peak = max(peaks)
        time.sleep(2)
        after = resident(pid)
        call = longest_call(stack)
        mean = call_seconds(stack)
    p95 = [float(np.percentile(waits, 95)) for waits in (alone, beside)]
    text = answer[0].json()["text"] if answer and answer[0].status_code == 200 else ""
    heard = (
        text.lower().count("selfish")
        + text.lower().count("dashwood")
        + text.lower().count("forward")
    )
    print(f"answered {answer[0].status_code if answer else 'not'} after {took:.0f} s; "
          f"{heard} of {expected} sentences heard")  # fmt: skip
    print(f"{len(beside)} windows beside it: p95 {p95[1]:.2f} s, alone {p95[0]:.2f} s; "
          f"calls take {mean:.2f} s at the mean, decoding up to {call:.2f} s")  # fmt: skip
    print(f"memory before {before >> 20} MiB, most {peak >> 20}, after {after >> 20}")
    return all(
        (
            0.98 * expected <= heard <= 1.02 * expected,
            p95[1] - p95[0] <= call,
            peak - before < GROWTH_LIMIT,
            after - before < LEFT_OVER_LIMIT,
        )
    )


def leavers(n_requests: int) -> bool:
    """Clients of whom half do not wait for their answer."""
    clip = wav(recording("austen_0890.wav").waveform())
    dice = random.Random(4)
    plans = [dice.uniform(0, 8) if number % 2 else None for number in range(n_requests)]
    with tempfile.TemporaryDirectory() as folder, started(folder) as stack:
        pid = worker_pid(stack)
        post(stack, clip, "realtime")
        before = state(pid)

        def ask(leave_after_s: float | None) -> int:
            if leave_after_s is None:
                return post(stack, clip, "realtime").status_code
            leave(stack, clip, leave_after_s)
            return 0

        with ThreadPoolExecutor(32) as pool:
            codes = list(pool.map(ask, plans))
        empty = until(
            lambda: (
                stack.metric(1, "transcription_slots_in_use") == 0
                and stack.metric(1, "transcription_waiting") == 0
            ),
            60,
        )
        time.sleep(2)
        after = state(pid)
        dropped = stack.metric(1, "transcription_dropped_operations_total")
        gone = stack.metric(1, "transcription_cancelled_total")
    stayed = [code for code in codes if code]
    print(f"{len(stayed)} stayed: {stayed.count(200)} answered 200")
    print(f"{codes.count(0)} left: {gone:.0f} seen in the worker, {dropped:.0f} calls dropped")
    print(f"slots and queue empty: {empty}")
    print(f"threads, descriptors, MiB before {before}, after {after}")
    return all(
        (
            empty,
            stayed.count(200) == len(stayed),
            dropped > 0,
            after[0] <= before[0] + 2 * 32,
            after[1] <= before[1] + 8,
            after[2] - before[2] < LEFT_OVER_LIMIT >> 20,
        )
    )


def leave(stack: Stack, clip: bytes, after_s: float) -> None:
    """Send a request and close the connection."""
    request = httpx.Request(
        "POST", stack.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
        files={"file": ("audio", clip)},
    )  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", int(stack.settings["LB_PORT"]))) as connection:
        line = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\n"
        connection.sendall(f"{line}{head}\r\n".encode() + request.read())
        time.sleep(after_s)


def state(pid: int) -> tuple[int, int, int]:
    """A process's threads, descriptors and MiB."""
    return (
        len(os.listdir(f"/proc/{pid}/task")),
        len(os.listdir(f"/proc/{pid}/fd")),
        resident(pid) >> 20,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = ("hour", "leavers", "life")
    parser.add_argument("what", nargs="*", choices=known, default=known)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--wall-minutes", type=float, default=20)
    chosen = parser.parse_args()
    kept = True
    if "hour" in chosen.what:
        kept = hour(chosen.minutes) and kept
    if "leavers" in chosen.what:
        kept = leavers(chosen.requests) and kept
    if "life" in chosen.what:
        kept = life(chosen.wall_minutes) and kept
    print("All promises kept." if kept else "A promise is broken.")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
