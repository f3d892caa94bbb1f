"""How long a repair lasts: attacks on a checkpoint that its owner could meet, each beside the undisturbed model.

What carries them out is loaded when it is asked for, since torch takes seconds; the options need none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redinstruct.stressing.options import StressOptions

if TYPE_CHECKING:
    from redinstruct.stressing.carrying import Stressed, check, stress

__all__ = ["StressOptions", "Stressed", "check", "stress"]


def __getattr__(name: str) -> Any:
    """What torch is needed for."""
    if name in __all__:
        from redinstruct.stressing import carrying

        return getattr(carrying, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
