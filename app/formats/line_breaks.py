"""Decide where a text may be broken into lines, and what each break costs its readability.

The rules for each language are short tables; text that they do not cover breaks at any space. The
patterns match the text around a break, with a newline in place of the space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise

# Costs. Another cue costs less than 3, so a break this costly is chosen only if nothing else fits.
IN_WORD = 20.0
TIED = 6.0
IN_NAME = 3.0
NO_SPACE = 0.01  # between letters of a script without spaces; after a mark is better

SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "।", "۔", "؟")
PHRASE_ENDS = (",", ";", ":", "،", "、", "，", "；", "：", "—", "–")
OPENING_QUOTES = "\"'“‘„«([¿¡"
CLOSING_QUOTES = "\"'”’»)]"
HYPHENS = "-‐–—/"

# Thai and Lao; Burmese; Khmer; Chinese and Japanese with their punctuation. Korean has spaces.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
# Letters that begin no line: small kana, repetition marks, Thai and Lao vowels after a consonant.
TRAILING = "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶー々〻ゝゞヽヾะาำๅๆฯະາຳຽໆຯ"
# Characters that end no line: Thai and Lao vowels before a consonant, signs, a joiner.
LEADING = "เแโใไເແໂໃໄ¿¡#§№\u200d"
VIRAMA = 9  # combining class of signs that join two consonants; Burmese asat does not
BURMESE_ASAT = "\u103a"

# Only scripts with both cases: Georgian letters are lower case, but begin sentences.
UPPER = "".join(letter for letter in map(chr, range(0x590)) if letter.isupper())
LOWER = "".join(letter for letter in map(chr, range(0x590)) if letter.islower())
# Abbreviations that never end a sentence: titles, "that is", "compare", "about".
LEADING_ON = (
    "mr|mrs|ms|messrs|dr|prof|rev|hon|st|ste|mt|gen|col|capt|lt|sgt|maj|gov|sen|rep|pres"
    "|vs|cf|viz|approx|incl|esp|resp"  # English above, also other languages here
    "|hr|hrn|fr|ing|dipl|bzw|vgl|inkl|sog|ggf|evtl|ca|dhr|mevr|bijv"  # German, Dutch
    "|mm|mme|mlle|mgr|env|sr|sra|srta|dra|dña|aprox|sig|dott|avv"  # French, Spanish, Italian
    "|ks|inż|np|tj|tzn|tzv|např"  # Polish, Czech
)
TITLES = (
    "miss|sir|lady|lord|king|queen|president|captain|professor|doctor|saint"
    "|herrn?|frau|monsieur|madame|señora?|don|doña"
)
NUMBERED = "nos?|nr|núm|nro|n[º°]|č|figs?|vol|pp?|s|art|abs|kap|bd|abb|ch|sec|ext|tel"
LARGE = r"hundred|thousand|mil|(?:m|b|tr)illion\w*|milliard\w*|mill[oó]n\w*|mio\.|mrd\."
# Words tied to the number before them; other words are tied more loosely, UNRELATED not at all.
MONTHS = "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
MONTHS_EN = "January|February|March|May|June|July|October|December"  # those not among the German
UNITS = (
    "[kcm]?m|[km]?g|[mc]?l|h|s|ms|min|km/h|mph|ft|lbs?|oz|[ap]m|AM|PM|[KMGT]B|[kMG]?Hz|[kM]?[WVA]"
    "|°?[CF]|EUR|USD|GBP|CHF|Uhr|Euro|Cent|Dollar|Pfund|Prozent|Grad|Kilo\\w+|Meter|Liter|Gramm"
    "|Stunden?|Minuten?|Jahren?|Milli\\w+|Mio|Mrd"
)
UNRELATED = "and|or|but|in|on|at|to|for|from|with|und|oder|et|ou|y|o|e"
PARTICLES = "van|von|der|den|de|del|della|di|da|dos|du|la|le|of|the"
# Words that begin a sentence after "U.S." or "plan B."; another capital there belongs to a name.
OPENERS = (
    "The|A|An|It|He|She|We|They|I|You|This|That|These|Those|There|Here|But|And|So|Or|In|On|At|As"
    "|For|If|When|What|Who|How|Why|My|His|Her|Our|Their|Its|No|Not|Yes|Now|Then|After|Before"
)

# Text to keep on one line wherever it fits.
TIES = re.compile(
    rf"""
    (?<!\w)(?i:{LEADING_ON})\.\n(?!(?:{OPENERS})\b)          # Mr. and Mrs. Smith, vs. Jones
    | (?<!\w)(?i:{LEADING_ON}|{TITLES})\n[{UPPER}]           # Dr Smith, Lady Catherine
    | (?<!\w)(?:[{UPPER}]\.)+\n(?!(?:{OPENERS})\b)[{UPPER}]  # J.R.R. Tolkien, U.S. Army
    | (?<![\w.])\w\.\n\w\.(?!\w)                             # J. R., z. B., p. m.
    | (?<!\w)([{UPPER}])\1\.\n([{UPPER}])\2\.                # EE. UU.
    | (?<![\w.'’])(?![ap]\.[ ]?m\.)[{LOWER}]\.[ ]?\w{{1,3}}\.\n  # e.g. this, z. B. das
    | (?<![\w'’])(?i:{NUMBERED})\.?\n\d                      # No. 5
    | (?:[^\W\ds]|(?<!\w)s)['’]\n\w                          # l' homme
    | (?:^|[ ])[«“„‘(\[{{¿¡$€£¥#§№/&]+\n                     # a mark that leads to the next word
    | \n[»”’)\]}}!?.,;:…/&]+(?:[ ]|$)                        # a mark that follows the last word
    | (?<![.!?…])\n[-–—]+(?:[ ]|$)                           # a dash within a sentence
    | (?:^[ ]?|[.!?…][ ])[-–—]+\n                            # the dash before a speaker's words
    """,
    re.VERBOSE,
)
# The same, unless the speaker pauses at the break.
NUMBERS = re.compile(
    rf"""
    \d(?:st|nd|rd|th|er|[ºª])?\n(?:                         # 5 km, 10 000, 1.5 %, 10th of May
        [\d%‰°€$£¥] | [ap]\. | (?:{UNITS}|{MONTHS}|{MONTHS_EN}|de|of)(?!\w)
    )
    | \d[ ](?i:{LARGE})\n\w                                  # 5 million dollars
    | \d[ ][-–—]\n\d                                         # 10 - 12
    | \d[年月日時时点]\n\d                                   # 12月10日
    | (?<!\d)\d\d?\.\n(?:[{LOWER}\d]|(?:{MONTHS}|Jahrhundert|Weltkrieg)(?!\w))  # 3. Oktober
    | (?<!\w)(?:{MONTHS_EN}|{MONTHS})\n\d                    # December 10
    | (?<!\d)\d\d?(?:st|nd|rd|th)?,\n[12]\d\d\d(?!\d)        # December 10, 2024
    | \d\w*[ ](?:de|of)\n\w | [ ]de\n[12]\d\d\d              # 5 de mayo de 2024
    | \d\.?[ ](?:de[ ])?\w+\n(?:de[ ])?[12]\d\d\d(?!\d)      # 10 mars 2024
    """,
    re.VERBOSE,
)
NAMES = re.compile(
    rf"""
    (?<!\w)[{UPPER}][\w'’-]*(?:[ ](?:{PARTICLES}))*\n(?:(?:{PARTICLES})[ ])*[{UPPER}]
    | (?<!\w)(?!(?:{OPENERS})\n)[{UPPER}]\w*\n\d            # Apollo 11
    | (?<![\w/:-])\d{{1,3}}(?:[.,]\d+)*\n(?!(?:{UNRELATED})\b)[^\W{UPPER}]  # 11 people; no year
    """,
    re.VERBOSE,
)


def break_cost(before: str, after: str, is_pause: bool) -> float:
    """Return the cost of a line break between `before` and `after`.

    Args:
        before: A few words before the break.
        after: A few words after it, with the leading space if the text has one.
        is_pause: Whether the speaker pauses at the break.

    Returns:
        0 for a good break.
    """
    spaced = after.startswith(" ")
    if not spaced and not is_between_scripts(before + after, len(before)):
        return TIED if before.endswith(tuple(HYPHENS)) else IN_WORD
    spot = f"{before}\n{after.lstrip()}"
    is_counted = not spaced and before.endswith(tuple("0123456789"))  # 2024年
    if is_counted or TIES.search(spot) or (not is_pause and NUMBERS.search(spot)):
        return TIED
    if not is_pause and NAMES.search(spot):
        return IN_NAME
    return 0.0 if spaced or before.endswith(SENTENCE_ENDS + PHRASE_ENDS) else NO_SPACE


def ends_sentence(before: str, after: str) -> bool:
    """Return whether a sentence ends here: at its mark, unless lower case follows.

    So "at 5 p.m. on Friday" is one sentence, and "at 5 p.m. On Friday" two.
    """
    has_mark = before.rstrip(CLOSING_QUOTES).endswith(SENTENCE_ENDS)
    return has_mark and not after.lstrip(OPENING_QUOTES + " ").startswith(tuple(LOWER))


def ends_phrase(before: str) -> bool:
    """Return whether a phrase ends here; a full stop would be that of an abbreviation."""
    text = before.rstrip(CLOSING_QUOTES)
    return text.endswith(PHRASE_ENDS) or text.endswith(("!", "?", "…", "..."))


Rule = Callable[[str, int], bool]


def is_between_words(text: str, at: int) -> bool:
    """Return whether a space begins here; it belongs to the word after it."""
    return text[at].isspace() and not text[at - 1].isspace()


def is_between_letters(text: str, at: int) -> bool:
    """Return whether a line can begin with this letter: not with an accent or a closing mark.

    A line cannot end with an opening mark or a sign before a number either.
    """
    before, after = text[at - 1], text[at]
    return not (
        before.isspace()
        or before in LEADING
        or unicodedata.category(before) in ("Ps", "Pi", "Sc")
        or (unicodedata.combining(before) == VIRAMA and before != BURMESE_ASAT)
        or after in TRAILING
        or (
            after not in LEADING
            and unicodedata.category(after)
            in ("Mn", "Mc", "Me", "Cf", "Sk", "Pe", "Pf", "Po", "Pd")
        )
    )


def is_between_scripts(text: str, at: int) -> bool:
    """Return whether a line can begin here without a space: next to a letter of such a script."""
    neighbour = UNSPACED.match(text, at - 1) or UNSPACED.match(text, at)
    return neighbour is not None and is_between_letters(text, at)


def is_after_hyphen(text: str, at: int) -> bool:
    """Return whether a hyphen or a slash within a word ends here."""
    in_word = text[at - 2 : at - 1].isalnum() and is_between_letters(text, at)
    return in_word and text[at - 1] in HYPHENS


def is_between_columns(text: str, at: int) -> bool:
    """Return whether this character has a column of its own and follows no space."""
    return columns(text[at]) > 0 and not text[at - 1].isspace()


def split(text: str, begin: int, end: int, rule: Rule) -> Iterator[tuple[int, int]]:
    """Yield the pieces of text[begin:end] that begin where the rule holds, as offsets."""
    yield from pairwise([begin, *(at for at in range(begin + 1, end) if rule(text, at)), end])


def narrow(
    text: str,
    begin: int,
    end: int,
    max_width: int,
    rules: tuple[Rule, ...] = (
        is_between_scripts,
        is_after_hyphen,
        is_between_letters,
        is_between_columns,
    ),
) -> Iterator[tuple[int, int]]:
    """Yield a word whole if it fits on a line, else split by the first rules that make it fit.

    Yields more pieces than necessary; the layout of the surrounding words joins some again.
    """
    if not rules or width(text[begin:end].strip()) <= max_width:
        yield begin, end
        return
    for first, last in split(text, begin, end, rules[0]):
        yield from narrow(text, first, last, max_width, rules[1:])


def width(text: str) -> int:
    """Return the columns of a text: East Asian wide characters take two, combining ones none."""
    return sum(columns(letter) for letter in text)


def columns(letter: str) -> int:
    """Return the columns of one character."""
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
