"""Days and durations as people tell them."""

from __future__ import annotations

from datetime import UTC, datetime


def day(at: float) -> str:
    """``29 Nov 2026, 12:43 UTC``; a time that no calendar has, as it is."""
    try:
        found = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{at:g} s after 1970"
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[found.month - 1]
    return f"{found.day} {month} {found.year}, {found:%H:%M} UTC"


def duration(seconds: float) -> str:
    """``0.42 s``, ``34 s``, ``12 min``, ``3 h 20 min``, ``5 days``."""
    if seconds < 10:
        return f"{seconds:.2g}\u00a0s" if seconds >= 0.001 else "under 1\u00a0ms"
    if seconds < 120:
        return f"{seconds:.0f}\u00a0s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes}\u00a0min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h {minutes}\u00a0min" if hours < 48 else f"{hours / 24:.0f}\u00a0days"
