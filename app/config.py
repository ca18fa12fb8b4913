"""Every setting of the service: name, default, limits and what it does, in one place.

A setting's name in the environment is its field's name in capitals. docs/settings.md is printed
from here (`python -m app.config > docs/settings.md`) and a test compares the two.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ROOT / ".env"


logger = logging.getLogger(__name__)

SHORTEST_LIMIT_S = 900  # of the longest request, where only short audio is allowed
MARGIN_S = 60
# Names that settings had before 0.2; accepted with a warning until 0.3.
FORMER_NAMES = {
    "PROMPT_LENGTH_MULTIPLE": "PROMPT_STEP",
    "PROMPT_ECHO_MIN_CHARS": "MIN_ECHO_LETTERS",
    "LOOP_MAX_TOKENS_PER_S": "MAX_TOKENS_PER_S",
}
SETTING_LIKENESS = 0.8  # from which an unknown name is a misspelled setting
FAIL_FAST_WAIT_S = 5.0  # for a slot: as long as a bot pauses before its last try
AUDIO_BYTES_PER_S = 16_000 * 4
SHA256 = re.compile(r"(?:[^/=]+=)?[0-9a-fA-F]{64}")
ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d+)?")  # as browsers write it
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ConfigError(ValueError):
    """Unusable setting; the message names the variable and what it accepts."""


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    advanced: bool = False,
) -> Any:
    """Return a field of `Config`: its default, what it does, and the values it accepts.

    Args:
        advanced: few operators set it; docs/settings.md lists it apart.
    """
    return field(
        default=default,
        repr=not secret,
        metadata={
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "advanced": advanced,
        },
    )


@dataclass(frozen=True)
class Config:
    """Checked, immutable settings of one worker and of its pool.

    Raises:
        ConfigError: a value is outside what its setting accepts.
    """

    # --- the model -------------------------------------------------------------------------
    model_size: str = setting(
        "large-v3-turbo",
        "A Whisper size, or a folder that holds a CTranslate2 model. Without a GPU and without "
        "a choice, `make run` takes the small English `tiny.en`.",
    )
    model_name: str = setting(
        "", "The name the API shows for the model; empty: the size or the folder's name."
    )
    model_dir: Path = setting(
        Path(".run/models"), "Where fetched models are kept; shared by all workers of a machine."
    )
    model_sha256: tuple[str, ...] = setting(
        (),
        "SHA-256 sums that the model's files must have, comma-separated: `FILE=SUM`, or a sum "
        "alone for `model.bin`. Another file stops the start, as one does that differs from a "
        "`SHA256SUMS` in the model's folder.",
        advanced=True,
    )
    device: str = setting(
        "auto",
        "`cuda`, `cpu`, or `auto`: a GPU when there is one. `cuda` without a GPU stops the start.",
        choices=("auto", "cuda", "cpu"),
    )
    compute_type: str = setting(
        "int8",
        "Number format of the weights in memory; `int8` halves the memory of `float16`.",
        choices=(
            "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16",
            "int16", "float16", "bfloat16", "float32",
        ),
    )  # fmt: skip
    cpu_threads: int = setting(
        0, "Threads of one decode on a CPU; 0: one, which gives the most requests a second.",
        minimum=0, maximum=512, advanced=True,
    )  # fmt: skip
    strict_model: bool = setting(
        False, "Refuse (404) a `model` that is not this worker's; otherwise any name is accepted."
    )
    translate_fallback: bool = setting(
        False,
        "A model that cannot translate (`*.en`, `*turbo*`, `distil-*`) transcribes instead, and "
        "the answer's `task` says so; `false`: 400.",
    )

    # --- how many at once ------------------------------------------------------------------
    max_concurrent_transcriptions: int = setting(
        0,
        "Slots of one worker: the most requests it holds at once. 0: twice what its device decodes "
        "at once, so that the next batch collects during a call: twice `MAX_BATCH_SIZE` on a GPU, "
        "2 for each of its cores on a CPU.",
        minimum=0, maximum=1024,
    )  # fmt: skip
    max_batch_size: int = setting(
        16, "Windows of different requests that share one call on a GPU; a CPU takes one.",
        minimum=1, maximum=256,
    )  # fmt: skip
    gpu_streams: int = setting(
        4,
        "Calls at a time on a GPU, for windows that cannot share one, such as those with prompts "
        "of another length; windows that can share still do.",
        minimum=1, maximum=64, advanced=True,
    )  # fmt: skip
    realtime_reserved_slots: int = setting(
        1, "Slots of each worker that are reserved for realtime requests; deferred requests always "
        "keep at least one.",
        minimum=0, maximum=1024,
    )  # fmt: skip
    fail_fast_when_busy: bool = setting(
        True,
        "`true`: a realtime request waits at most 5 s for a slot, then gets 503. `false`: it waits "
        "up to `QUEUE_TIMEOUT_S`.",
    )
    max_queue_size: int = setting(
        10, "Requests that may wait for a slot, for each worker; further ones get 503 at once.",
        minimum=0, maximum=10_000,
    )  # fmt: skip
    queue_timeout_s: float = setting(
        20.0, "The longest a request waits for a slot, or for the model to load; then 503.",
        minimum=0.1, maximum=3600,
    )  # fmt: skip
    deferred_queue_timeout_s: float = setting(
        300.0, "The longest a deferred request waits in the balancer for a slot; then 503.",
        minimum=0.1, maximum=3600, advanced=True,
    )  # fmt: skip
    busy_retry_after_s: int = setting(
        1,
        "The lowest `Retry-After` of a 503, in seconds; the balancer adds to it under load.",
        minimum=0, maximum=3600, advanced=True,
    )  # fmt: skip
    device_call_limit_s: float = setting(
        120.0, "A device call that takes longer counts as hung, and the worker is replaced.",
        minimum=1, maximum=3600, advanced=True,
    )  # fmt: skip
    drain_timeout_s: int = setting(
        60, "The longest a stopping worker takes to finish its requests; then it is killed.",
        minimum=1, maximum=3600,
    )  # fmt: skip

    # --- who may ask, and how much -----------------------------------------------------------
    api_token: str = setting(
        "",
        "A key without limits. Without this, `API_KEYS` and `API_KEYS_FILE` the service is open to "
        "everyone who reaches it.",
        secret=True,
    )
    api_keys: tuple[str, ...] = setting(
        (), "Further keys without limits, comma-separated (for rotation).", secret=True
    )
    api_keys_file: str = setting(
        "",
        "A file of named keys with limits, written by `make key`; changes take effect without a "
        "restart. While it is set a key is required, even if the file holds none. See "
        "[Keys](keys.md).",
    )
    max_upload_bytes: int = setting(
        100 * 1024 * 1024, "The largest request body in bytes; a larger one gets 413.",
        minimum=1024, maximum=4 * 1024**3,
    )  # fmt: skip
    max_audio_duration_s: float = setting(
        14_400.0, "The longest audio in seconds; longer audio gets 413 while it is decoded.",
        minimum=1, maximum=86_400,
    )  # fmt: skip
    max_decoded_audio_s: float = setting(
        0.0,
        "Seconds of decoded audio (64 kB each) that one worker holds at once; requests that do not "
        "fit wait as they do for a slot. 0: the worker's share of a quarter of the memory. Never "
        "less than one recording of `MAX_AUDIO_DURATION_S`.",
        minimum=0, maximum=10_000_000, advanced=True,
    )  # fmt: skip
    decode_timeout_s: float = setting(
        300.0,
        "The longest that decoding an upload to a waveform may take, in wall time and in processor "
        "time; then 400. 16 kHz mono 16-bit WAV needs no decoder and is exempt.",
        minimum=1, maximum=3600, advanced=True,
    )  # fmt: skip

    # --- decoding ----------------------------------------------------------------------------
    encoder_window: str = setting(
        "full",
        "`full`: the encoder sees 30 s, as Whisper was trained. `adaptive`: it sees little more "
        "than the sound, which carried twice the meetings on a CPU with slightly different words "
        "([measured](measurements.md#encoder-window)).",
        choices=("full", "adaptive"),
    )
    min_window_ms: int = setting(
        100,
        "The rest of a recording after its last word is not decoded when it is shorter than this, "
        "in milliseconds, and dropped when it is shorter than 1 s and the model is unsure of it. "
        "0: it is decoded and kept, as by faster-whisper, which costs a whole window and produces "
        "hallucinations.",
        minimum=0, maximum=1000, advanced=True,
    )  # fmt: skip
    loop_max_tokens_per_s: float = setting(
        12.0,
        "A window above `COMPRESSION_RATIO_THRESHOLD` with more tokens for each second of sound "
        "than this is a repetition loop: it is decoded again without repetitions, and dropped if "
        "that does not help. 0: off.",
        minimum=0, maximum=1000, advanced=True,
    )  # fmt: skip
    prompt_echo_min_chars: int = setting(
        20,
        "A window whose text occurs in the prompt and has at least this many letters is decoded "
        "again without the prompt. 0: off.",
        minimum=0, maximum=1000, advanced=True,
    )  # fmt: skip
    noise_max_ms: int = setting(
        1200,
        "A window with at most this much sound, in milliseconds, that is above "
        "`NO_SPEECH_THRESHOLD` and whose text is very unlikely is noise or music. 0: off.",
        minimum=0, maximum=30_000, advanced=True,
    )  # fmt: skip
    prompt_min_tokens_per_s: float = setting(
        2.5,
        "A window with a prompt and fewer tokens than this for each second of speech is decoded "
        "again without the prompt, which may have made the model omit sentences; the result that "
        "covers more of the speech is kept. 0: off.",
        minimum=0, maximum=1000, advanced=True,
    )  # fmt: skip
    ignore_prompts: bool = setting(
        False,
        "Decode without the prompts that clients send. Right where a GPU is full and bots send "
        "the previous text with every window: windows share more calls, for up to two points of "
        "word errors in mixed talk ([measured](measurements.md#prompts)). Wrong where prompts "
        "carry names or spellings; `hotwords` still count.",
    )
    long_audio: str = setting(
        "chunked",
        "How recordings over 30 s are decoded. `chunked`: in parts cut at pauses, in parallel. "
        "`sequential`: one window after another, as faster-whisper does.",
        choices=("chunked", "sequential"),
    )
    beam_size: int = setting(5, "Hypotheses kept at temperature 0.", minimum=1, maximum=64)
    best_of: int = setting(
        5, "Samples drawn above temperature 0.", minimum=1, maximum=64, advanced=True
    )
    temperature: tuple[float, ...] = setting(
        (0.0,),
        "Temperatures tried in turn when a window fails its thresholds. Values above 0 can break a "
        "repetition loop, but sample at random, so the same request may get different words.",
        minimum=0, maximum=1, advanced=True,
    )  # fmt: skip
    compression_ratio_threshold: float = setting(
        2.4, "Above it (repetition) a window is tried at the next temperature.",
        minimum=0, maximum=100, advanced=True,
    )  # fmt: skip
    log_prob_threshold: float = setting(
        -1.0, "Below it (mean log probability) a window is tried at the next temperature.",
        minimum=-100, maximum=0, advanced=True,
    )  # fmt: skip
    no_speech_threshold: float = setting(
        0.6, "A window above it that also fails `LOG_PROB_THRESHOLD` is silence.",
        minimum=0, maximum=1, advanced=True,
    )  # fmt: skip
    repetition_penalty: float = setting(
        1.0, "Above 1: lowers the probability of tokens already written; 1.1 costs accuracy.",
        minimum=0.1, maximum=10, advanced=True,
    )  # fmt: skip
    no_repeat_ngram_size: int = setting(
        0, "Forbid repeating token groups of this length; 0: off. 3 costs accuracy.",
        minimum=0, maximum=64, advanced=True,
    )  # fmt: skip
    prompt_length_multiple: int = setting(
        1,
        "Cuts prompts to a multiple of this many tokens by dropping their oldest words, so that "
        "more windows share a call on a GPU. 1: off. "
        "[Measured](measurements.md#prompts-and-batches) for 16.",
        minimum=1, maximum=223, advanced=True,
    )  # fmt: skip
    condition_on_previous_text: bool = setting(
        False, "Show each window the text of the one before it.", advanced=True
    )
    prompt_reset_on_temperature: float = setting(
        0.5, "Above this temperature a window's text is not shown to the next one.",
        minimum=0, maximum=1, advanced=True,
    )  # fmt: skip
    vad_filter: bool = setting(True, "Cut out what is not speech before decoding.")
    vad_filter_threshold: float = setting(
        0.5,
        "Speech probability from which sound counts as speech.",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    vad_min_silence_duration_ms: int = setting(
        160, "Silence that ends a stretch of speech.", minimum=0, maximum=600_000, advanced=True
    )
    vad_max_speech_duration_s: float = setting(
        15.0,
        "Longer stretches of speech are cut at a pause.",
        minimum=1,
        maximum=86_400,
        advanced=True,
    )

    # --- live transcription --------------------------------------------------------------------
    live_max_sessions: int = setting(
        200, "Live sessions (WebSockets) of this machine's gateway; further ones get 503. 0: no "
        "gateway.", minimum=0, maximum=10_000,
    )  # fmt: skip
    live_interval_s: float = setting(
        1.0, "New speech after which a live session sends another window. Less shortens the delay "
        "of words and costs more windows.",
        minimum=0.2, maximum=30,
    )  # fmt: skip
    live_backlog_s: float = setting(
        60.0, "Seconds of audio that a live session keeps while the pool is busy; then turns fail.",
        minimum=10, maximum=600, advanced=True,
    )  # fmt: skip
    live_max_session_s: float = setting(
        14_400.0, "The longest live session in seconds; then its client has to connect again.",
        minimum=60, maximum=86_400, advanced=True,
    )  # fmt: skip
    live_port: int = setting(
        8405, "Port of the gateway of live transcription, on the workers' address.",
        minimum=1, maximum=65_535, advanced=True,
    )  # fmt: skip
    live_balancer_url: str = setting(
        "", "Where the gateway sends its windows, for example `http://10.0.0.5:8083`; empty: this "
        "machine's balancer.",
    )  # fmt: skip
    live_secret: str = setting(
        "", "Signs client secrets of live sessions; workers, gateways and balancers of all "
        "machines need the same. Empty: a random one in `RUN_DIR`, which suffices on one machine.",
        secret=True,
    )  # fmt: skip

    # --- the pool of one machine ---------------------------------------------------------------
    worker_id: int = setting(
        1,
        "The number of this worker, from 1; set by Supervisor.",
        minimum=1,
        maximum=10_000,
        advanced=True,
    )
    workers: int = setting(
        3,
        "Worker processes on this machine. Without a choice `make run` starts one for each GPU "
        "where it uses GPUs.",
        minimum=1, maximum=1000,
    )  # fmt: skip
    gpus: tuple[str, ...] = setting(
        (),
        "GPUs to use: comma-separated indices or `MIG-…`/`GPU-…` identifiers, assigned to the "
        "workers in turn. Empty: those of `CUDA_VISIBLE_DEVICES`, or all.",
    )
    lb_port: int = setting(
        8083, "The service's one port (HAProxy), on every address.", minimum=1, maximum=65_535
    )
    supervise_haproxy: bool = setting(
        True,
        "Start HAProxy with the workers; `false`: the balancers run as units of their own.",
        advanced=True,
    )
    worker_address: str = setting(
        "127.0.0.1",
        "Address the workers listen on. Use another than the loopback address only for balancers "
        "on other hosts, and behind a firewall that admits only them.",
    )
    worker_base_port: int = setting(
        8001, "Port of worker 1; the next ones follow.", minimum=1, maximum=65_535, advanced=True
    )
    stats_port: int = setting(
        8404, "HAProxy's stats page and metrics, on the loopback address.",
        minimum=1, maximum=65_535,
    )  # fmt: skip
    stats_address: str = setting(
        "127.0.0.1",
        "Address of the stats page; any other than a loopback address requires `STATS_PASSWORD`.",
        advanced=True,
    )
    stats_password: str = setting(
        "", "Password of the stats page, for the user `operator`; empty: no password.",
        secret=True,
    )  # fmt: skip
    tls_certificate: str = setting(
        "", "A PEM file with certificate and key, or a folder of them: the port speaks TLS and h2."
    )
    cors_origins: tuple[str, ...] = setting(
        (), "Origins of other sites whose pages may call the service from a browser, "
        "comma-separated, for example `https://meetings.example.com`; empty: none."
    )  # fmt: skip
    rate_limit_per_minute: int = setting(
        0, "Transcription requests a minute for each key, or for each address without one; further "
        "ones get 429. 0: no limit.", minimum=0, maximum=1_000_000,
    )  # fmt: skip
    run_dir: Path = setting(
        Path(".run"), "Sockets, pid files, rendered configuration and `service.log`.", advanced=True
    )
    log_level: str = setting(
        "info", "The lowest level that is logged.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "auto",
        "Format of the workers' log: `json`, one object on each line; `text`, for people; `auto`: "
        "text when `make run` has a terminal, else JSON.",
        choices=("auto", "json", "text"),
    )

    # Names of the fields that the environment sets: a chosen value, even if it is the default.
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for item in settings():
            check(item, getattr(self, item.name))
        last_port = self.worker_base_port + self.workers - 1
        if last_port > 65_535:
            raise ConfigError(
                f"WORKER_BASE_PORT={self.worker_base_port} leaves no room for "
                f"WORKERS={self.workers}: the last port would be {last_port}."
            )
        own = range(self.worker_base_port, last_port + 1)
        for name, port in (
            ("LB_PORT", self.lb_port),
            ("STATS_PORT", self.stats_port),
            ("LIVE_PORT", self.live_port),
        ):
            if port in own:
                raise ConfigError(
                    f"{name}={port} is one of the workers' ports "
                    f"({own.start} to {last_port}, from WORKER_BASE_PORT and WORKERS)."
                )
        for checksum in self.model_sha256:
            if not SHA256.fullmatch(checksum):
                raise ConfigError(
                    f"MODEL_SHA256 holds {checksum!r}; it accepts SHA-256 sums of 64 hexadecimal "
                    "digits, each alone (for model.bin) or behind a file's name and '='."
                )
        if self.stats_address not in LOOPBACK and not self.stats_password:
            raise ConfigError(
                f"STATS_ADDRESS={self.stats_address} opens the stats page to others; set "
                "STATS_PASSWORD too."
            )
        for origin in self.cors_origins:
            if not ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"CORS_ORIGINS: {origin!r} is no origin; it is https://HOST or http://HOST, "
                    "with a port where it has one, and nothing behind it. `*` is not accepted."
                )
        if self.lb_port == self.stats_port:
            raise ConfigError(f"LB_PORT and STATS_PORT are both {self.lb_port}.")
        if self.live_port in (self.lb_port, self.stats_port):
            raise ConfigError(f"LIVE_PORT={self.live_port} is LB_PORT or STATS_PORT too.")
        if self.live_balancer_url and not ORIGIN.fullmatch(self.live_balancer_url):
            raise ConfigError(
                f"LIVE_BALANCER_URL is {self.live_balancer_url!r}; it accepts http://HOST or "
                "https://HOST, with a port where it has one, and nothing behind it."
            )

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, env_file: Path | None = ENV_FILE
    ) -> Config:
        """Read the settings; the environment wins over the `.env` file.

        Args:
            environ: variables; None: those of this process.
            env_file: a file of NAME=value lines, read when it exists.

        Raises:
            ConfigError: a variable holds something its setting does not accept.
        """
        found: dict[str, str | None] = {}
        if env_file is not None and env_file.is_file():
            found.update(read_env_file(env_file))
        found.update(os.environ if environ is None else environ)
        values: dict[str, Any] = {}
        for item in settings():
            name = item.name.upper()
            text = (found.get(name) or "").strip()
            former = FORMER_NAMES.get(name, "")
            if not text and (text := (found.get(former) or "").strip()):
                logger.warning("setting %s is now called %s", former, name)
            if text:
                values[item.name] = parse(item, text)
        given = frozenset(values)
        values.setdefault("gpus", visible_gpus(found.get("CUDA_VISIBLE_DEVICES") or ""))
        return cls(**values, given=given)

    # --- what follows from the settings --------------------------------------------------------

    @property
    def name(self) -> str:
        """Return the model's name as the API shows it."""
        return self.model_name or Path(self.model_size).name or self.model_size

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys among the settings; those of `API_KEYS_FILE` come on top."""
        return tuple(key for key in (self.api_token, *self.api_keys) if key)

    @property
    def keys_path(self) -> Path | None:
        """Return the path of `API_KEYS_FILE`; None: there is none."""
        return ROOT / self.api_keys_file if self.api_keys_file else None

    @property
    def asks_for_key(self) -> bool:
        """Return whether a client must send a key."""
        return bool(self.keys or self.api_keys_file)

    @property
    def cores(self) -> int:
        """Return the number of cores of one worker: its share of the machine's."""
        return max(1, len(os.sched_getaffinity(0)) // self.workers)

    @property
    def replicas(self) -> int:
        """Return the number of decodes side by side in one worker on a CPU.

        One-thread decodes side by side do twice the requests of all cores on one, so each core
        has its own, as far as there are slots to fill them.
        """
        return min(self.max_concurrent_transcriptions or self.cores, self.cores)

    @property
    def slots(self) -> int:
        """Return the number of requests inside one worker at once.

        `auto` counts as a CPU: `make run` has named the device by then.
        """
        at_once = self.max_batch_size if self.device == "cuda" else self.replicas
        return self.max_concurrent_transcriptions or 2 * at_once

    @property
    def deferred_slots(self) -> int:
        """Return the slots that deferred requests may hold at once; at least one."""
        return max(1, self.slots - self.realtime_reserved_slots)

    @property
    def slot_wait_s(self) -> float:
        """Return the longest time that a realtime request waits for a slot, in seconds."""
        if self.fail_fast_when_busy:
            return min(FAIL_FAST_WAIT_S, self.queue_timeout_s)
        return self.queue_timeout_s

    @property
    def audio_budget_s(self) -> float:
        """Return the seconds of decoded audio that one worker holds at once."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        share_s = memory / 4 / self.workers / AUDIO_BYTES_PER_S
        return max(self.max_decoded_audio_s or share_s, self.max_audio_duration_s)

    @property
    def longest_request_s(self) -> int:
        """Return the longest time that a request may take, in seconds.

        The longest audio, decoded as fast as it is heard, and a minute. The balancer waits so long
        for an answer, and a rollout for a worker's requests.
        """
        return max(SHORTEST_LIMIT_S, math.ceil(self.max_audio_duration_s)) + MARGIN_S

    @property
    def worker_ports(self) -> tuple[int, ...]:
        """Return the workers' ports, worker 1 first."""
        return tuple(range(self.worker_base_port, self.worker_base_port + self.workers))

    @property
    def worker_port(self) -> int:
        """Return the port of this worker."""
        return self.worker_base_port + self.worker_id - 1

    @property
    def worker_gpu(self) -> str | None:
        """Return `CUDA_VISIBLE_DEVICES` for this worker; None: leave it as it is."""
        return self.gpus[(self.worker_id - 1) % len(self.gpus)] if self.gpus else None

    @property
    def workers_on_gpu(self) -> int:
        """Return the number of workers that share this worker's GPU, itself included."""
        everywhere = len(self.gpus) or 1
        return len(range((self.worker_id - 1) % everywhere, self.workers, everywhere)) or 1

    def environment(self) -> dict[str, str]:
        """Return the settings as environment variables, for Supervisor and HAProxy to read."""
        return {item.name.upper(): show(getattr(self, item.name)) for item in settings()}

    def consequences(self) -> dict[str, str]:
        """Return what follows from the settings, for HAProxy, which cannot work it out."""
        return {
            "MAX_CONCURRENT_TRANSCRIPTIONS": str(self.slots),
            "DEFERRED_SLOTS": str(self.deferred_slots),
            "QUEUE_TIMEOUT_MS": str(round(self.slot_wait_s * 1000)),
            "DEFERRED_QUEUE_TIMEOUT_MS": str(round(self.deferred_queue_timeout_s * 1000)),
            "ASKS_FOR_KEY": show(self.asks_for_key),
            "LONGEST_REQUEST_S": str(self.longest_request_s),
            "HAS_LIVE": show(self.live_max_sessions > 0),
        }


def read_env_file(path: Path) -> dict[str, str | None]:
    """Read a file of NAME=value lines.

    Raises:
        ConfigError: a name looks like a misspelled setting. Other unknown names are for other
            programs.
    """
    # Imported here: the playbooks import this module where only ansible-core is installed.
    from dotenv import dotenv_values

    values = dotenv_values(path)
    known = {item.name.upper() for item in settings()}
    for name in values.keys() - known - {*FORMER_NAMES.values()}:
        if meant := get_close_matches(name, known, 1, SETTING_LIKENESS):
            raise ConfigError(f"{path}: {name} is no setting; did you mean {meant[0]}?")
    return values


def settings() -> tuple[Field[Any], ...]:
    """Return the fields of `Config` that a user sets."""
    return tuple(item for item in fields(Config) if item.metadata)


def visible_gpus(text: str) -> tuple[str, ...]:
    """Return the entries of `CUDA_VISIBLE_DEVICES`; CUDA ignores all from `-1` on."""
    return tuple(itertools.takewhile(lambda entry: entry != "-1", strings(text)))


def show(value: Any) -> str:
    """Return a value as the environment holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(show(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def parse(item: Field[Any], text: str) -> Any:
    """Turn a variable's text into its field's type, or say what it accepts."""
    try:
        return PARSERS[str(item.type)](text)
    except ValueError:
        raise ConfigError(refusal(item, text)) from None


def check(item: Field[Any], value: Any) -> None:
    """Raise `ConfigError` unless the value is within its setting's limits."""
    choices = item.metadata["choices"]
    minimum, maximum = item.metadata["minimum"], item.metadata["maximum"]
    if choices and value not in choices:
        raise ConfigError(refusal(item, show(value)))
    if minimum is not None:
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(minimum <= number <= maximum for number in numbers):
            raise ConfigError(refusal(item, show(value)))


def refusal(item: Field[Any], text: str) -> str:
    """Return the sentence that stops the start."""
    shown = "a secret" if not item.repr else repr(text)
    return f"{item.name.upper()} is {shown}; it accepts {accepts(item)}."


def accepts(item: Field[Any]) -> str:
    """Return the values that a setting accepts, in words."""
    if item.metadata["choices"]:
        return "one of " + ", ".join(item.metadata["choices"])
    kind = KINDS[str(item.type)]
    if item.metadata["minimum"] is None:
        return kind
    return f"{kind} from {show(item.metadata['minimum'])} to {show(item.metadata['maximum'])}"


def boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1", "yes", "on"):
        return True
    if lowered in ("false", "0", "no", "off"):
        return False
    raise ValueError(text)


def strings(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in strings(text))


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": boolean,
    "Path": Path,
    "tuple[str, ...]": strings,
    "tuple[float, ...]": numbers,
}

KINDS: Mapping[str, str] = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Path": "a folder",
    "tuple[str, ...]": "a comma-separated list",
    "tuple[float, ...]": "a comma-separated list of numbers",
}


PAGE = """\
# Settings

Settings come from the environment or from a file `.env` in the project folder; the environment
wins. A value that is not accepted stops the start with a sentence that names the setting and what
it accepts. `make restart` does not read `.env` again: stop the service and `make run` it. On hosts
that Ansible installs, settings are in the inventory ([Deployment](deployment.md#settings)).

This page is written by `.venv/bin/python -m app.config > docs/settings.md`; a test compares the
two.

"""

ADVANCED = """
## Advanced settings

Their defaults were measured or follow from the machine, and few services need another value.

"""


def page() -> str:
    """Return docs/settings.md: an introduction, the settings, and the advanced ones."""
    return f"{PAGE}{table(advanced=False)}\n{ADVANCED}{table(advanced=True)}\n"


def table(advanced: bool) -> str:
    """Return the table of the advanced settings or of the others, in Markdown."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for item in settings():
        if item.metadata["advanced"] != advanced:
            continue
        assert item.default is not MISSING
        default = f"`{show(item.default)}`" if show(item.default) else "(empty)"
        lines.append(f"| `{item.name.upper()}` | {default} | {item.metadata['help']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
