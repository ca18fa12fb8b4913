"""Map the language codes and names that clients send to Whisper's codes."""

from __future__ import annotations

# Whisper's codes and English names. Source: Radford et al. 2022, appendix E; Cantonese was added
# with large-v3.
LANGUAGES = {
    "af": "afrikaans", "am": "amharic", "ar": "arabic", "as": "assamese",
    "az": "azerbaijani", "ba": "bashkir", "be": "belarusian", "bg": "bulgarian",
    "bn": "bengali", "bo": "tibetan", "br": "breton", "bs": "bosnian", "ca": "catalan",
    "cs": "czech", "cy": "welsh", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian",
    "fi": "finnish", "fo": "faroese", "fr": "french", "gl": "galician", "gu": "gujarati",
    "ha": "hausa", "haw": "hawaiian", "he": "hebrew", "hi": "hindi", "hr": "croatian",
    "ht": "haitian creole", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "is": "icelandic", "it": "italian", "ja": "japanese", "jw": "javanese",
    "ka": "georgian", "kk": "kazakh", "km": "khmer", "kn": "kannada", "ko": "korean",
    "la": "latin", "lb": "luxembourgish", "ln": "lingala", "lo": "lao", "lt": "lithuanian",
    "lv": "latvian", "mg": "malagasy", "mi": "maori", "mk": "macedonian", "ml": "malayalam",
    "mn": "mongolian", "mr": "marathi", "ms": "malay", "mt": "maltese", "my": "myanmar",
    "ne": "nepali", "nl": "dutch", "nn": "nynorsk", "no": "norwegian", "oc": "occitan",
    "pa": "punjabi", "pl": "polish", "ps": "pashto", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sa": "sanskrit", "sd": "sindhi", "si": "sinhala", "sk": "slovak",
    "sl": "slovenian", "sn": "shona", "so": "somali", "sq": "albanian", "sr": "serbian",
    "su": "sundanese", "sv": "swedish", "sw": "swahili", "ta": "tamil", "te": "telugu",
    "tg": "tajik", "th": "thai", "tk": "turkmen", "tl": "tagalog", "tr": "turkish",
    "tt": "tatar", "uk": "ukrainian", "ur": "urdu", "uz": "uzbek", "vi": "vietnamese",
    "yi": "yiddish", "yo": "yoruba", "yue": "cantonese", "zh": "chinese",
}  # fmt: skip

# Alternative English names.
NAMES = {
    "burmese": "my", "castilian": "es", "farsi": "fa", "filipino": "tl", "flemish": "nl",
    "haitian": "ht", "letzeburgesch": "lb", "mandarin": "zh", "moldavian": "ro",
    "moldovan": "ro", "panjabi": "pa", "pushto": "ps", "sinhalese": "si", "valencian": "ca",
}  # fmt: skip

# Alternative codes: ISO 639-3, 639-2 (both variants), and withdrawn ones. Serbo-Croatian and
# Montenegrin map to Serbian, as in Unicode's CLDR. The package langcodes has a similar table, but
# it caches every tag it is asked about without limit, and knows only one member of most
# macrolanguages, so the tables below would still be needed.
FURTHER_CODES = {
    "af": "afr", "am": "amh", "ar": "ara", "as": "asm", "az": "aze", "ba": "bak", "be": "bel",
    "bg": "bul", "bn": "ben", "bo": "bod tib", "br": "bre", "bs": "bos", "ca": "cat",
    "cs": "ces cze", "cy": "cym wel", "da": "dan", "de": "deu ger", "el": "ell gre",
    "en": "eng", "es": "spa", "et": "est", "eu": "eus baq", "fa": "fas per", "fi": "fin",
    "fo": "fao", "fr": "fra fre", "gl": "glg", "gu": "guj", "ha": "hau", "he": "heb iw",
    "hi": "hin", "hr": "hrv scr", "ht": "hat", "hu": "hun", "hy": "hye arm", "id": "ind in",
    "is": "isl ice", "it": "ita", "ja": "jpn", "jw": "jav jv", "ka": "kat geo", "kk": "kaz",
    "km": "khm", "kn": "kan", "ko": "kor", "la": "lat", "lb": "ltz", "ln": "lin", "lo": "lao",
    "lt": "lit", "lv": "lav", "mg": "mlg", "mi": "mri mao", "mk": "mkd mac", "ml": "mal",
    "mn": "mon", "mr": "mar", "ms": "msa may", "mt": "mlt", "my": "mya bur", "ne": "nep",
    "nl": "nld dut", "nn": "nno", "no": "nor nb", "oc": "oci", "pa": "pan", "pl": "pol",
    "ps": "pus", "pt": "por", "ro": "ron rum mo mol", "ru": "rus", "sa": "san", "sd": "snd",
    "si": "sin", "sk": "slk slo", "sl": "slv", "sn": "sna", "so": "som", "sq": "sqi alb",
    "sr": "srp scc sh hbs cnr", "su": "sun", "sv": "swe", "sw": "swa", "ta": "tam",
    "te": "tel", "tg": "tgk", "th": "tha", "tk": "tuk", "tl": "tgl fil", "tr": "tur",
    "tt": "tat", "uk": "ukr", "ur": "urd", "uz": "uzb", "vi": "vie", "yi": "yid ji",
    "yo": "yor", "zh": "zho chi",
}  # fmt: skip

# Members of a macrolanguage without a Whisper code of their own; each maps to the macrolanguage.
# Source: ISO 639-3's table of macrolanguages, and `ajp`, which ISO has merged into `apc`.
MEMBERS = {
    "ar": (
        "aao abh abv acm acq acw acx acy adf aeb aec afb ajp apc apd arb arq ars ary arz "
        "auz avl ayh ayl ayn ayp pga shu ssh"
    ),
    "az": "azb azj",
    "et": "ekk vro",
    "fa": "pes prs",
    "lv": "ltg lvs",
    "mg": "bhr bmm bzc msh plt skg tdx tkg txy xmv xmw",
    "mn": "khk mvf",
    "ms": (
        "bjn btj bve bvu coa dup hji jak jax kvb kvr kxd lce lcf liw max meo mfa mfb min "
        "mqg msi mui orn ors pel pse tmw urk vkk vkt xmm zlm zmi zsm"
    ),
    "ne": "dty npi",
    "no": "nob",
    "ps": "pbt pbu pst",
    "sa": "cls vsn",
    "sq": "aae aat aln als",
    "sw": "swc swh",
    "uz": "uzn uzs",
    "yi": "ydd yih",
    "zh": "cdo cjy cmn cnp cpx csp czh czo gan hak hnm hsn luh lzh mnp nan sjc wuu",
}

# Macrolanguage tags whose member has its own Whisper code.
MEMBER_TAGS = {"no-nyn": "nn", "zh-yue": "yue"}

CODES = (
    {code: code for code in LANGUAGES}
    | {name: code for code, name in LANGUAGES.items()}
    | NAMES
    | {
        further: code
        for table in (FURTHER_CODES, MEMBERS)
        for code, listed in table.items()
        for further in listed.split()
    }
    | MEMBER_TAGS
)

# Values that request detection: an empty field, the code for "undetermined", and locales without a
# language.
DETECT = ("", "auto", "und", "c", "posix")


def language_code(text: str) -> str | None:
    """Return the Whisper code for a code, an English name or a locale (`eng`, `en_US.UTF-8`).

    Args:
        text: an ISO 639 code, a tag that begins with one (BCP 47, POSIX), or a name; in any case.
            Subtags after the code, such as script or region, are ignored.

    Returns:
        The code; None if the language is to be detected.

    Raises:
        ValueError: the text names no language that Whisper knows.
    """
    plain = text.strip().lower()
    if plain in CODES:
        return CODES[plain]
    locale = plain.split(".")[0].split("@")[0].replace("_", "-")
    if locale in DETECT:
        return None
    language, *further = locale.split("-")
    if len(language) <= 3:
        for tag in ("-".join([language, *further[:1]]), language):
            if tag in CODES:
                return CODES[tag]
    raise ValueError(text)
