"""Settings: one frozen value, checked; docs/settings.md is the same list."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import config as config_module
from app.config import ROOT, Config, ConfigError, settings


def read(environ: dict[str, str], env_file: Path | None = None) -> Config:
    return Config.from_env(environ, env_file)


def test_every_setting_has_its_default_without_an_environment():
    assert read({}) == Config()
    assert read({"BEAM_SIZE": " "}) == Config(), "an empty variable is no choice"


def test_a_misspelled_setting_of_the_env_file_stops_the_start(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text("WORKERZ=2\n")
    with pytest.raises(ConfigError, match="WORKERZ is no setting; did you mean WORKERS"):
        read({}, env_file)

    env_file.write_text("HF_HOME=/models\nCUDA_VISIBLE_DEVICES=0\nPROMPT_STEP=4\n")

    assert read({}, env_file).prompt_length_multiple == 4, "other programs' names are theirs"


def test_environment_wins_over_the_env_file(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text("BEAM_SIZE=3\nMODEL_SIZE=small  # a comment\n")

    found = read({"BEAM_SIZE": "2"}, env_file)

    assert (found.beam_size, found.model_size) == (2, "small")
    assert found.given == {"beam_size", "model_size"}


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("DEVICE", "gpu", "auto, cuda, cpu"),
        ("MAX_CONCURRENT_TRANSCRIPTIONS", "-1", "from 0 to 1024"),
        ("MAX_CONCURRENT_TRANSCRIPTIONS", "two", "a whole number from 0"),
        ("FAIL_FAST_WHEN_BUSY", "maybe", "true or false"),
        ("TEMPERATURE", "0,2", "from 0 to 1"),
        ("TEMPERATURE", ",", "from 0 to 1"),
        ("QUEUE_TIMEOUT_S", "nan", "a number from 0.1"),
        ("LB_PORT", "70000", "from 1 to 65535"),
        ("COMPUTE_TYPE", "int4", "int8_float16"),
    ],
)
def test_bad_value_stops_the_start_with_a_sentence(name, text, accepted):
    """The sentence names the variable, what it holds and what it accepts."""
    with pytest.raises(ConfigError, match=f"^{name} is .*it accepts .*{accepted}"):
        read({name: text})


def test_ports_may_not_collide():
    with pytest.raises(ConfigError, match="LB_PORT"):
        read({"LB_PORT": "8002"})
    with pytest.raises(ConfigError, match="LB_PORT and STATS_PORT"):
        read({"LB_PORT": "8404"})
    with pytest.raises(ConfigError, match="WORKER_BASE_PORT"):
        read({"WORKER_BASE_PORT": "65534"})


def test_keys_come_from_both_settings_and_are_never_shown():
    found = read({"API_TOKEN": "first", "API_KEYS": "second, third"})

    assert found.keys == ("first", "second", "third")
    assert "first" not in repr(found)
    assert "third" not in repr(found)


def test_gpus_are_dealt_to_workers_in_turn():
    """GPUs are strings, so that a slice of a GPU can be named by its identifier."""
    workers = [read({"GPUS": "0, MIG-7a", "WORKER_ID": str(number)}) for number in (1, 2, 3)]

    assert [worker.worker_gpu for worker in workers] == ["0", "MIG-7a", "0"]
    assert [worker.worker_port for worker in workers] == [8001, 8002, 8003]
    assert read({}).worker_gpu is None


def test_workers_that_share_a_gpu_are_counted():
    of_five = [
        read({"GPUS": "0,1", "WORKERS": "5", "WORKER_ID": str(number)}).workers_on_gpu
        for number in range(1, 6)
    ]

    assert of_five == [3, 2, 3, 2, 3]
    assert read({"WORKERS": "2"}).workers_on_gpu == 2, "all have the first GPU"


@pytest.mark.parametrize(
    ("environ", "gpus"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8b,MIG-7a"}, ("GPU-8b", "MIG-7a")),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "GPUS": "1"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "2,-1,3"}, ("2",)),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
    ],
)
def test_gpus_are_those_that_the_environment_shows_unless_named(environ, gpus):
    found = read(environ)

    assert found.gpus == gpus
    assert ("gpus" in found.given) == ("GPUS" in environ)


def test_a_worker_that_reads_its_own_environment_again_keeps_its_gpu():
    second = read({"CUDA_VISIBLE_DEVICES": "2,3", "WORKER_ID": "2"})

    again = read({"CUDA_VISIBLE_DEVICES": str(second.worker_gpu), "WORKER_ID": "2"})

    assert again.worker_gpu == second.worker_gpu == "3"


def test_environment_brings_back_the_same_settings():
    """What the pool hands to its processes is what it read itself."""
    found = read({"TEMPERATURE": "0,0.4", "VAD_FILTER": "no", "API_KEYS": "a,b", "GPUS": "1"})

    again = read(found.environment())

    assert {each.name: getattr(again, each.name) for each in settings()} == {
        each.name: getattr(found, each.name) for each in settings()
    }


def test_cores_are_dealt_to_workers_then_decodes(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)))

    def dealt(**settings) -> tuple[int, int, int]:
        config = Config(**settings)
        return config.cores, config.replicas, config.slots

    assert dealt(workers=1) == (12, 12, 24)
    assert dealt(workers=3) == (4, 4, 8)
    assert dealt(workers=50) == (1, 1, 2)
    assert dealt(workers=1, max_concurrent_transcriptions=4) == (12, 4, 4)
    assert dealt(workers=6, max_concurrent_transcriptions=9) == (2, 2, 9)


def test_a_gpu_has_slots_for_two_batches():
    """While one batch is on the device, the next one gathers."""
    assert Config(device="cuda").slots == 32
    assert Config(device="cuda", max_batch_size=4).slots == 8
    assert Config(device="cuda", max_concurrent_transcriptions=5).slots == 5


def test_deferred_requests_always_keep_a_slot():
    assert Config(max_concurrent_transcriptions=1).deferred_slots == 1
    assert Config(max_concurrent_transcriptions=8, realtime_reserved_slots=3).deferred_slots == 5


def test_settings_page_is_generated_from_the_settings():
    page = (ROOT / "docs" / "settings.md").read_text()

    assert page == config_module.page(), "run: python -m app.config > docs/settings.md"


@pytest.mark.parametrize(("name", "former"), config_module.FORMER_NAMES.items())
def test_former_name_of_a_setting_is_read_with_a_warning(name, former, caplog):
    assert Config.from_env({former: "32"}, None) == Config.from_env({name: "32"}, None)
    assert former in caplog.text
    assert name in caplog.text
    assert Config.from_env({name: "16", former: "32"}, None) == Config.from_env({name: "16"}, None)


def test_a_setting_of_an_earlier_version_does_not_stop_the_start(tmp_path):
    (tmp_path / ".env").write_text("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318\n")

    assert Config.from_env({}, tmp_path / ".env") == Config()


def test_a_file_of_keys_asks_for_one():
    assert not Config().asks_for_key
    assert Config(api_token="first").asks_for_key
    assert Config(api_keys_file="/etc/transcription/keys").asks_for_key
