"""Languages: what clients say and what Whisper understands."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from app.engine.languages import LANGUAGES, language_code


def test_codes_are_whispers():
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("en", "en"), ("EN", "en"), ("English", "en"), (" german ", "de"), ("en-US", "en"),
        ("en_US.UTF-8", "en"), ("zh-Hant-TW", "zh"), ("pt_BR", "pt"), ("haw", "haw"),
        ("iw", "he"), ("nb-NO", "no"), ("Castilian", "es"), ("ca_ES.UTF-8@valencia", "ca"),
    ],
)  # fmt: skip
def test_names_cases_and_locales_are_normalised(text, code):
    assert language_code(text) == code


@pytest.mark.parametrize("text", ["", "auto", "AUTO", "C", "C.UTF-8", "POSIX"])
def test_no_language_means_detect(text):
    assert language_code(text) is None


@pytest.mark.parametrize("text", ["xx", "klingon", "e", "english-us-x", "12", "en us", "auto-US"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=text):
        language_code(text)
