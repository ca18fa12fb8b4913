"""What clients call a language, and what Whisper calls it."""

from __future__ import annotations

# Whisper's codes with their English names. Source: Radford et al. 2022, appendix E, and the
# Cantonese added with large-v3.
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

# Other names and codes that stand for one of the above.
ALIASES = {
    "burmese": "my", "castilian": "es", "farsi": "fa", "fil": "tl", "filipino": "tl",
    "flemish": "nl", "haitian": "ht", "iw": "he", "jv": "jw", "letzeburgesch": "lb",
    "mandarin": "zh", "moldavian": "ro", "moldovan": "ro", "nb": "no", "panjabi": "pa",
    "pushto": "ps", "sinhalese": "si", "valencian": "ca",
}  # fmt: skip

CODES = (
    {code: code for code in LANGUAGES} | {name: code for code, name in LANGUAGES.items()} | ALIASES
)

# What stands for "find out": an empty field, and locales that name no language.
DETECT = ("", "auto", "c", "posix")


def language_code(text: str) -> str | None:
    """The Whisper code for a code, an English name or a locale (`en`, `English`, `en_US.UTF-8`).

    Returns:
        The code; None when the language is to be detected.

    Raises:
        ValueError: it names no language Whisper knows.
    """
    plain = text.strip().lower()
    if plain in CODES:
        return CODES[plain]
    locale = plain.split(".")[0].split("@")[0].replace("_", "-")
    language = locale.split("-")[0]
    if language in DETECT and locale in DETECT:
        return None
    if language in CODES and len(language) <= 3:
        return CODES[language]
    raise ValueError(text)
