"""How long a failed answer asks to wait, in seconds: every header and every form of a body in use. Pure.

Asked outright: ``retry-after-ms``, ``Retry-After`` (seconds, a duration or an HTTP date), Azure's
``x-ms-retry-after-ms``, Google's ``RetryInfo.retryDelay``, fields like ``retry_after_seconds`` and ``estimated_time``
(Hugging Face), and sentences: "Please try again in 1m2.5s", "retry after 26 seconds". The longest of these counts: one
that says 0 beside one that says 23 s is a default. Without any, the moment at which the limit is filled again:
``x-ratelimit-reset-requests`` (OpenAI, Groq), ``anthropic-ratelimit-tokens-reset``, ``RateLimit-Reset``, an epoch in
seconds or milliseconds (OpenRouter); of several limits, those of which nothing remains.

A moment is counted from the server's own ``Date``, where it says one: our clock, or its, may be wrong. One without a
zone is UTC's, as in HTTP's oldest form of a date.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

LONGEST = 30 * 86400.0
"""Seconds. A wait that is longer than this is a slip, or a date read as a number."""

_SECONDS = {
    "ms": 1e-3,
    "s": 1.0,
    "秒": 1.0,
    "m": 60.0,
    "分": 60.0,
    "h": 3600.0,
    "小": 3600.0,
    "d": 86400.0,
    "天": 86400.0,
}
_UNIT = (
    r"(?:(?:ms|milli(?:second)?s?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?)(?![a-z])"
    r"|秒|分|小时|天)"
)
_PIECE = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ?({_UNIT})", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_PIECE.pattern}钟?[, ]{{0,2}}(?:and )?)+", re.IGNORECASE)
_POLICY = re.compile(r"(?:^|;)\s*(r|t)=([0-9]+)")
_ASKS = re.compile(
    r"retry|retries|try(?:ing)? (?:your request )?again|wait\b|available|resets?\b|重试|再试", re.IGNORECASE
)
_FIELD = re.compile(r"retry_?(?:delay|after)(?:_?(?P<unit>ms|milli|s))?|estimated_?time", re.IGNORECASE)
_MOST_WORDS = 4096


def asked(headers: Mapping[str, str], fields: Iterable[tuple[str, object]], words: Iterable[str]) -> float | None:
    """Seconds that a failure asks for outright, in its headers, in its body's fields (name, value) or in its words."""
    now = _clock(headers)
    found = [_value(headers.get(name), now, 1e-3) for name in ("retry-after-ms", "x-ms-retry-after-ms")]
    found.append(_value(headers.get("Retry-After"), now))
    for name, value in fields:
        if (field := _FIELD.match(name)) is not None:
            unit = (field["unit"] or "").lower()
            found.append(_value(value, now, 1e-3 if unit.startswith("m") else 1.0))
    found += [_in_words(text) for text in words]
    return max((wait for wait in found if wait is not None), default=None)


def refilled(headers: Mapping[str, str]) -> float | None:
    """Seconds until the limits that an answer's headers name are filled again."""
    empty: list[float] = []
    unknown: list[float] = []
    now = _clock(headers)
    lower = {name.lower(): value for name, value in headers.items()}
    for name, value in lower.items():
        left: str | None
        if name == "ratelimit":  # the newer draft: "default";r=0;t=30
            told = dict(_POLICY.findall(value))
            wait, left = _value(told.get("t"), now), told.get("r")
        elif "reset" in name and "limit" in name:
            wait = _value(value, now)
            left = lower.get(name.replace("reset-after", "remaining").replace("reset", "remaining"))
        else:
            continue
        if wait is None:
            continue
        if left is None:
            unknown.append(wait)
        elif left.strip() in ("0", "0.0"):
            empty.append(wait)
    # Several limits refill at different times, and nobody says which of them was hit: the soonest costs one more try.
    return max(empty) if empty else min(unknown, default=None)


def seconds(text: str) -> float | None:
    """A duration in words: ``1m2.5s``, ``6m0s``, ``120ms``, ``20 seconds``, ``1 hour and 5 minutes``."""
    pieces = _PIECE.findall(text)
    return sum(float(number) * _SECONDS[_unit(unit.lower())] for number, unit in pieces) if pieces else None


def _unit(name: str) -> str:
    return "ms" if name.startswith(("ms", "milli")) else name[0]


def _in_words(text: str) -> float | None:
    """The duration in the first sentence that asks to come again; each such sentence of a text is looked at."""
    text = text[:_MOST_WORDS]
    for asks in _ASKS.finditer(text):
        near = text[asks.end() : asks.end() + 60]
        if (duration := _DURATION.search(near)) is not None:
            return _sane(seconds(duration[0]))
        # "请在 5 秒后重试": the duration stands before.
        if asks[0] in ("重试", "再试") and (before := _DURATION.search(text[max(0, asks.start() - 12) : asks.start()])):
            return _sane(seconds(before[0]))
    return None


def _value(value: object, now: float, unit: float = 1.0) -> float | None:
    """The wait that a header or a field holds: a number, a duration, or a moment."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _sane(_number(float(value), now) * unit) if abs(value) < 1e18 else None
    if not isinstance(value, str) or not (text := value.strip()) or len(text) > 100:
        return None
    try:
        return _sane(_number(float(text), now) * unit)
    except ValueError:
        pass
    if (duration := _DURATION.fullmatch(text)) is not None:
        return _sane(seconds(duration[0]))
    moment = _moment(text)
    return None if moment is None else _sane(max(0.0, moment - now))


def _number(value: float, now: float) -> float:
    """Seconds from now; a number that can only be an epoch, in seconds or milliseconds, is one."""
    if value > 1e11:
        value /= 1000
    return max(0.0, value - now) if value > 1e9 else value


def _clock(headers: Mapping[str, str]) -> float:
    """The time at the server when it answered, as an epoch."""
    said = _moment(headers.get("Date", ""))
    return time.time() if said is None else said


def _moment(text: str) -> float | None:
    """An RFC 3339 or HTTP date as an epoch."""
    try:
        at = datetime.fromisoformat(text) if text[:4].isdigit() else email.utils.parsedate_to_datetime(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _sane(wait: float | None) -> float | None:
    return wait if wait is not None and 0 <= wait <= LONGEST else None
