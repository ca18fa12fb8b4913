"""The word error rates' own arithmetic, noise, and manifests of others."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.measure import errors, wer
from tests.support.recordings import DATA, manifest, recording, speech, waveform, without_speech


def test_errors_are_counted_over_all_texts():
    counted = wer.Errors()
    counted.add("one two three four", "one too three")
    counted.add("five", "five six")

    assert (counted.wrong, counted.words) == (3, 5)
    assert str(counted).strip() == "60.00 %"


def test_words_in_brackets_are_spoken():
    assert errors.normalised("The Bible (of Mainz) [sic]", "en") == "the bible of mainz sic"


@pytest.mark.parametrize("snr_db", [20.0, 0.0])
def test_noise_is_as_loud_as_told(snr_db):
    clean = recording("austen_0890.wav")
    noisy = wer.Noisy.of(clean, snr_db)
    mixed, speech_alone = noisy.waveform(), clean.waveform()
    scale = float(mixed @ speech_alone / (speech_alone @ speech_alone))
    noise = mixed / scale - speech_alone

    measured = 10 * np.log10(np.mean(speech_alone**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.5)
    assert np.abs(waveform(noisy.content()) - mixed).max() < 1e-3
    assert noisy.waveform() == pytest.approx(mixed)


def test_manifest_of_an_operator(tmp_path):
    """A file's name and its text are enough; no text means that nobody speaks."""
    for name in ("austen_0890.wav", "silence_3s.wav"):
        shutil.copyfile(DATA / name, tmp_path / name)
    lines = [
        {"file": "austen_0890.wav", "text": "unless", "language": "en"},
        {"file": "silence_3s.wav"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(lines))

    for place in (tmp_path, tmp_path / "manifest.json"):
        found = list(manifest(place))
        assert [one.name for one in speech(found)] == ["austen_0890.wav"]
        assert [one.name for one in without_speech(found)] == ["silence_3s.wav"]
        assert found[0].waveform().size > 16_000
    assert list(manifest(tmp_path / "nowhere")) == []


def test_words_made_up_are_counted(capsys):
    silent = without_speech()
    said = {"silence_3s.wav": "Thank you.", "tone_440hz_5s.flac": ""}
    found = wer.hallucinations(silent, {"side": lambda one: said.get(one.name, "")})

    assert found == {"side": 2}
    assert "side, silence_3s.wav: Thank you." in capsys.readouterr().out
    assert len(silent) >= 5
