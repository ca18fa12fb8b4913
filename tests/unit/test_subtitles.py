"""Where subtitles break: between words, not within names, amounts, dates and abbreviations."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.engine.results import Segment, Transcript, Word
from app.formats.subtitles import Cue, Layout, cues, width

WORD_S = 0.3


def timed(*parts: str, start: float = 0.0) -> Segment:
    """A segment whose parts have times, one after another, as faster-whisper gives them."""
    times = [start + n * WORD_S for n in range(len(parts) + 1)]
    words = (
        Word(part, begin, end, 0.9)
        for part, (begin, end) in zip(parts, pairwise(times), strict=True)
    )
    return segment("".join(parts), start, times[-1], tuple(words))


def untimed(text: str, start: float = 0.0) -> Segment:
    return segment(text, start, start + WORD_S * len(text.split()))


def segment(text: str, start: float, end: float, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(0, 0, start, end, text, (1,), 0.0, -0.2, 1.0, 0.0, words)


def laid_out(*segments: Segment, columns: int = 42, count: int = 1) -> list[Cue]:
    transcript = Transcript("transcribe", "en", 0.9, 600.0, segments)
    return cues(transcript, Layout(columns, count))


def lines(*segments: Segment, columns: int = 42, count: int = 1) -> list[str]:
    return [line for cue in laid_out(*segments, columns=columns, count=count) for line in cue.lines]


PARTS = [
    (30, " Unless| to| be| rather| cold|-hearted| and| rather| selfish| is| to| be| ill|-disposed.",
         "Unless to be rather / cold-hearted and rather / selfish is to be ill-disposed."),
    (13, " That| one| here| was| worth| $1|,000| to| him",
         "That one here / was worth / $1,000 to him"),
    (14, " We| met| on| 10|-12|-2024| there", "We met on / 10-12-2024 / there"),
    (11, " We| leave| at| about| 3|.30| p|.m|.| today", "We leave / at about / 3.30 p.m. / today"),
    (16, " Send| it| to| me|@ex|ample|.com| now", "Send it to / me@example.com / now"),
    (11, " He| said| and|/or| but| no", "He said / and/or / but no"),
    (11, " At| about| 12|:30| he| left", "At about / 12:30 / he left"),
    (10, " We| stayed| in| the| U|.S|.| towns", "We stayed / in the / U.S. towns"),
    (21, " Many| men| of| the| town| met| at| St|.| John|'s| church",
         "Many men of the / town met at / St. John's church"),
]  # fmt: skip


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize(("columns", "parts", "expected"), PARTS)
def test_parts_of_a_word_with_times_stay_together(columns, parts, expected, count):
    found = lines(timed(*parts.split("|")), columns=columns, count=count)

    assert found == expected.split(" / ")


def test_word_of_parts_has_the_time_of_all_of_them():
    first, last = laid_out(timed(" Unless", " cold", "-hearted", start=5.0), columns=12)

    assert (first.start, first.lines) == (5.0, ("Unless",))
    assert (last.start, last.lines) == (5.0 + WORD_S, ("cold-hearted",))


# Each line as wide as it may be; without a rule for it, the break would be inside.
KEPT = [
    # Titles, names
    (18, "He met Mr. Smith / there before / noon and left"),
    (14, "We saw / Dr Smith there / before noon"),
    (24, "They live near / St. John's and are happy"),
    (29, "the books of J. R. R. Tolkien / are long and good"),
    (23, "the books of / J.R.R. Tolkien are long"),
    (25, "then George W. Bush / came and spoke to us"),
    (14, "and then / Lady Catherine / began to speak"),
    (28, "they met / Ludwig van Beethoven at home"),
    (26, "he worked for / Marks & Spencer until then"),
    (22, "we flew with Apollo 11 / to the moon then"),
    (24, "so now the U.S. Army / went home and slept"),
    (24, "gestern hat Prof. Müller / lange gesprochen"),
    (24, "hier soir M. Dupont / a parlé longtemps"),
    (15, "ensuite / Mme Curie a / parlé longtemps"),
    (28, "y ayer el Sr. García / habló mucho con ellos"),
    # Amounts, dates, times
    (15, "we have some / 35 km to / go before / the night"),
    (21, "so we left at / 3.30 p.m. on / that very day"),
    (24, "we left it at 3.30 p. m. / on that very day"),
    (20, "prices rose by 1.5 % / in that very year"),
    (20, "the temperature of / 5 degrees is too low"),
    (27, "it was on December 10, 2024 / that we met"),
    (22, "it was the 10th of May / when they came"),
    (27, "he sold it for / $5 million dollars and left"),
    (18, "the town of / 3 000 000 people / who live there now"),
    (16, "it is some / 5 - 6 miles from / here to there"),
    (11, "er schlief / bis um / 20 Uhr / am Abend"),
    (21, "es kostet 3 Mio. Euro / und ein bisschen"),
    (24, "das war am 3. Oktober / und nicht im Mai"),
    (21, "ont payé 10 000 euros / pour tout cela"),
    (24, "fue el 5 de mayo de 2024 / cuando llegó"),
    (22, "bylo to 5. května 2024 / u nás doma"),
    # Abbreviations
    (27, "The shop is at No. 5 in / that street over there"),
    (26, "all fruits, e.g. apples / and pears, are good"),
    (15, "das ist also / z. B. in Berlin / und in Bonn so"),
    (18, "das Haus ist Nr. 7 / in dieser Straße"),
    (30, "er geht d. h. er läuft / nach Hause jetzt"),
    (15, "vive en los / EE. UU. desde / hace diez años"),
    (28, "the word (see p. 12) / is a good one"),
    # Marks
    (28, "et puis il a dit le « film » / et puis rien d'autre"),
    (21, "hier il a dit : / « oui » et / rien de plus"),
    (16, "ensuite l' homme / est parti / sans un mot"),
    (20, "y luego dijo : ¿ qué / hora es ahora ?"),
    (14, "het kost hem / € 500 per stuk"),
    (15, "we went there - / as you know - / and he sang"),
]


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize(("columns", "expected"), KEPT)
def test_names_amounts_and_abbreviations_stay_on_a_line(columns, expected, count):
    text = " " + expected.replace(" / ", " ")

    assert lines(untimed(text), columns=columns, count=count) == expected.split(" / ")


def cue_ends(text: str, count: int) -> list[str]:
    """The last word of each cue."""
    return [cue.lines[-1].split()[-1] for cue in laid_out(untimed(text), count=count)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("abbreviation", "text"),
    [
        ("U.S.", "The talks of last week in the U.S. about all this ended badly, "
                 "and nobody knew what to do."),
        ("Mr.", "Last week they went to see old Mr. Dashwood, who had long been ill, "
                "and his three daughters."),
        ("etc.", "He has apples, pears, plums, etc. in his garden, "
                 "and everybody who comes by may take some."),
    ],
)  # fmt: skip
def test_no_cue_ends_with_an_abbreviation_in_a_sentence(abbreviation, text, count):
    assert abbreviation not in cue_ends(text, count)


def test_sentence_ends_with_an_abbreviation_before_a_capital_letter():
    before = "They came home at about 5 p.m."

    assert "p.m." not in cue_ends(
        f"{before} on that day, and nobody had seen them leave the house at all.", 2
    )
    assert "p.m." in cue_ends(
        f"{before} On that day nobody had seen them leave the house at all.", 2
    )


def test_words_of_a_name_in_two_segments_come_in_one_cue():
    first, last = laid_out(
        timed(" And", " now", " comes", " Mr."), timed(" Dashwood", " said", " so.", start=1.2)
    )

    assert (first.lines, last.lines) == (("And now comes",), ("Mr. Dashwood said so.",))
    assert last.start == pytest.approx(3 * WORD_S)


def test_segment_of_another_speaker_leaves_the_one_before_it_whole():
    first, last = laid_out(timed(" Well", " then,"), timed(" -", " Yes,", " sir.", start=0.6))

    assert (first.lines, last.lines) == (("Well then,",), ("- Yes, sir.",))


def test_dash_of_a_speaker_begins_a_line_with_what_is_said():
    text = " - Are you going there? - Yes, I am."

    assert lines(untimed(text), columns=24) == ["- Are you going there?", "- Yes, I am."]


def test_sentences_end_in_a_script_without_capital_letters():
    first, _ = laid_out(untimed(" ეს არის პირველი. ეს არის მეორე გრძელი წინადადება"), columns=40)

    assert first.lines == ("ეს არის პირველი.",)


def test_number_and_a_word_after_a_pause_are_apart():
    before = Word(" 1995", 1.0, 1.4, 0.9)
    words = (Word(" It", 0.0, 0.5, 0.9), Word(" was", 0.5, 1.0, 0.9), before)
    later = (
        Word(" miles", 3.0, 3.5, 0.9),
        Word(" went", 3.5, 4.0, 0.9),
        Word(" by", 4.0, 4.5, 0.9),
    )
    whole = segment(" It was 1995 miles went by", 0.0, 4.5, words + later)

    assert lines(whole, columns=15) == ["It was 1995", "miles went by"]


UNSPACED = [
    (20, "これは|長い|文章|です|、|「|はい」|と|2024|年|に|言った|。",
         "これは長い文章です、 / 「はい」と / 2024年に言った。"),
    (12, "你好|，|我|是|王先生|。|今天|是|12|月|10|日|，|很|高兴|。",
         "你好，我是 / 王先生。今天 / 是12月10日， / 很高兴。"),
    (10, "ฉัน|ชอบ|กิน|ข้|าว|ผัด|และ|เ|ค้ก", "ฉันชอบกินข้าว / ผัดและเค้ก"),
    (5, "ฉัน|ชอบ|กิน|ข้|าว|ผัด|และ|เ|ค้ก", "ฉันชอบ / กินข้าว / ผัดและ / เค้ก"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "parts", "expected"), UNSPACED)
def test_scripts_without_spaces_break_between_parts(columns, parts, expected):
    assert lines(timed(*parts.split("|")), columns=columns) == expected.split(" / ")


@pytest.mark.parametrize(
    ("columns", "text", "expected"),
    [
        (20, "これは長い文章です、「はい」と言った。", "これは長い文章です、 / 「はい」と言った。"),
        (14, "私はiPhoneを使ってみたいです。", "私はiPhone / を使ってみ / たいです。"),
    ],
)
def test_scripts_without_spaces_break_between_letters(columns, text, expected):
    assert lines(untimed(text), columns=columns) == expected.split(" / ")


@pytest.mark.parametrize(
    ("columns", "text", "expected"),
    [
        (
            30,
            "die Kapitänsmützenfabrikarbeiter-Gewerkschaft",
            "die / Kapitänsmützenfabrikarbeiter- / Gewerkschaft",
        ),
        (22, "see https://example.com/a-long/path", "see / https://example.com/ / a-long/path"),
        (10, "abcdefghijklmnopqrstuvwxyz", "abcdefgh / ijklmnopq / rstuvwxyz"),
    ],
)
def test_word_wider_than_a_line_is_cut_after_a_hyphen_if_it_can(columns, text, expected):
    assert lines(untimed(text), columns=columns) == expected.split(" / ")


WORDS = [
    "a", "und", "cold-hearted", "Mr.", "J.", "Smith", "U.S.", "5", "1,000", "km", "p.m.", "end.",
    "-", "«", "»", "?", "這是", "文章。", "ฉันชอบ", "e\u0301" * 12, "!" * 12,
    "abcdefghijklmnopqrstuvwxyz",
]  # fmt: skip
texts = some.lists(some.sampled_from(WORDS), max_size=30).map(lambda words: " " + " ".join(words))


@given(texts, texts, some.integers(10, 50), some.integers(1, 3), some.randoms())
def test_any_text_is_whole_fits_and_breaks_between_words(text, later, columns, count, dice):
    """Its words with times of their parts, which may begin anywhere."""
    cuts = sorted({0, len(text), *(dice.randrange(len(text)) for _ in range(9))})
    parts = [text[begin:end] for begin, end in pairwise(cuts)]
    found = laid_out(timed(*parts), untimed(later, 30.0), columns=columns, count=count)

    shown = [line for cue in found for line in cue.lines]
    assert "".join("".join(shown).split()) == "".join((text + later).split())
    assert all(line and width(line) <= columns for line in shown)
    assert all(1 <= len(cue.lines) <= count for cue in found)
    assert all(one.end <= other.start + 1e-9 for one, other in pairwise(found))
    pieces = {piece for line in shown for piece in line.split()}
    narrow = [word for word in (text + later).split() if word.isascii() and len(word) <= columns]
    assert set(narrow) <= pieces
