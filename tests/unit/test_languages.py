"""Languages: what clients say and what Whisper understands."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from app.engine.languages import FURTHER_CODES, LANGUAGES, MEMBERS, language_code


def test_codes_are_whispers():
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("en", "en"), ("EN", "en"), ("English", "en"), (" german ", "de"), ("en-US", "en"),
        ("en_US.UTF-8", "en"), ("zh-Hant-TW", "zh"), ("pt_BR", "pt"), ("haw", "haw"),
        ("iw", "he"), ("nb-NO", "no"), ("Castilian", "es"), ("ca_ES.UTF-8@valencia", "ca"),
        ("EN-us", "en"), ("sr-Latn", "sr"), ("ENG", "en"), ("deu-AT", "de"), ("eng_GB", "en"),
        ("cmn-Hans-CN", "zh"), ("zho_Hant", "zh"), ("yue-Hant-HK", "yue"), ("zh-yue", "yue"),
        ("zh_YUE_HK", "yue"), ("zh-cmn-Hans", "zh"), ("no-nyn", "nn"), ("hin-Latn", "hi"),
        ("in-ID", "id"), ("sh-Cyrl", "sr"), ("es-419", "es"), ("de-CH-1996", "de"),
    ],
)  # fmt: skip
def test_names_cases_and_locales_are_normalised(text, code):
    assert language_code(text) == code


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("id", "in id ind"), ("he", "iw he heb"), ("yi", "ji yi yid ydd yih"), ("jw", "jv jw jav"),
        ("ro", "mo ro rum ron mol"), ("sr", "sh sr srp scc hbs"), ("hr", "hr hrv scr"),
        ("en", "en eng"), ("de", "de ger deu"), ("fr", "fr fre fra"), ("nl", "nl dut nld"),
        ("cs", "cs cze ces"), ("el", "el gre ell"), ("cy", "cy wel cym"), ("my", "my bur mya"),
        ("bo", "bo tib bod"), ("eu", "eu baq eus"), ("hy", "hy arm hye"), ("is", "is ice isl"),
        ("ka", "ka geo kat"), ("mi", "mi mao mri"), ("mk", "mk mac mkd"), ("sk", "sk slo slk"),
        ("zh", "zh chi zho cmn wuu nan hak"), ("ar", "ar ara arb arz apc ajp ary"),
        ("fa", "fa per fas pes prs"), ("ms", "ms may msa zsm zlm"), ("no", "no nor nb nob"),
        ("nn", "nn nno"), ("sq", "sq alb sqi als aln"), ("sw", "sw swa swh swc"),
        ("lv", "lv lav lvs"), ("et", "et est ekk"), ("az", "az aze azj azb"), ("mg", "mg mlg plt"),
        ("mn", "mn mon khk"), ("ne", "ne nep npi"), ("ps", "ps pus pbu pst"), ("uz", "uz uzb uzn"),
        ("tl", "tl tgl fil"), ("haw", "haw"), ("yue", "yue"),
    ],
)  # fmt: skip
def test_every_code_of_a_language_is_read(code, texts):
    """Two letters and three, bibliographic ones, withdrawn ones, and macrolanguages' members."""
    assert {text: language_code(text) for text in texts.split()} == dict.fromkeys(
        texts.split(), code
    )


def test_every_language_of_two_letters_has_a_code_of_three():
    assert set(LANGUAGES) - set(FURTHER_CODES) == {"haw", "yue"}
    assert all(len(codes.split()[0]) == 3 for codes in FURTHER_CODES.values())


def test_no_code_stands_for_two_languages():
    listed = [
        code
        for table in (FURTHER_CODES, MEMBERS)
        for line in table.values()
        for code in line.split()
    ]

    assert sorted(listed) == sorted(set(listed) - set(LANGUAGES))


@pytest.mark.parametrize("text", ["", "auto", "AUTO", "und", "C", "C.UTF-8", "POSIX"])
def test_no_language_means_detect(text):
    assert language_code(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "xx",
        "klingon",
        "e",
        "english-us-x",
        "12",
        "en us",
        "auto-US",
        "und-US",
        "xxx",
        "fra/fre",
        "german-DE",
        "zhx-yue",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=text):
        language_code(text)
