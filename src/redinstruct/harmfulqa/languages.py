"""Which language a text is in: a heuristic, for a screen."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

UNKNOWN = "unknown"
_DENSE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
_WORD = re.compile(r"[^\W\d_]+")
_LOOKED_AT = 2000
_FUNCTION_WORDS = {
    "english": "the of to and in is it that for you what how can a are with this do i my be on would does an or by",
    "spanish": "el la los las de que y en un una es por para con como qué cómo se puedo del al lo mi está",
    "french": "le la les de des et en un une est que pour dans qui comment je vous du au ce sur avec puis",
    "german": "der die das und in zu den ist ein eine wie ich nicht mit man kann von für auf dem es sich",
    "italian": "il lo la gli di che e in un una è per con come non si del della posso sono mi alla",
    "portuguese": "o a os as de que e em um uma é por para com como não se do da posso meu ao no na",
}
_STOPS = {name: frozenset(words.split()) for name, words in _FUNCTION_WORDS.items()}
_SCRIPTS = {"HAN": "chinese", "CJK": "chinese", "HIRAGANA": "japanese", "KATAKANA": "japanese", "HANGUL": "korean"}

LANGUAGES = (*_FUNCTION_WORDS, "chinese", "japanese", "korean")


def language(text: str) -> str:
    """A guess at a text's language, and no more: by its script, and in Latin script by its commonest small words.

    ``english``, ``spanish``, ``french``, ``german``, ``italian``, ``portuguese``; ``chinese``, ``japanese``,
    ``korean``; another script's name in lower case (``cyrillic``: several languages); ``unknown`` where nothing
    decides, as with short texts without a small word.
    """
    script = _script(text)
    if script != "LATIN":
        return _SCRIPTS.get(script, script.lower()) if script else UNKNOWN
    words = _WORD.findall(text[:_LOOKED_AT].casefold())
    hits = {name: sum(word in stops for word in words) for name, stops in _STOPS.items()}
    best = max(hits, key=lambda name: hits[name])
    tied = sum(hits[name] == hits[best] for name in hits) > 1
    return UNKNOWN if tied or hits[best] * 10 < len(words) else best


def is_dense(text: str) -> bool:
    """Whether most of a text is in a script of which a character says as much as three letters."""
    return _script(text) in _DENSE


def _script(text: str) -> str:
    """The script of most letters, as Unicode's names begin; Japanese wherever there is kana."""
    counts = Counter(
        unicodedata.name(letter, "?").split(" ")[0].split("-")[0] for letter in text[:_LOOKED_AT] if letter.isalpha()
    )
    kana = next((name for name in ("HIRAGANA", "KATAKANA") if 10 * counts[name] > counts.total()), None)
    return kana or (counts.most_common(1)[0][0] if counts else "")
