"""How long a repair lasts: attacks on a checkpoint that its owner could meet, each beside the undisturbed model."""

from __future__ import annotations

from redinstruct.stressing.carrying import Stressed, check, stress
from redinstruct.stressing.options import StressOptions

__all__ = ["StressOptions", "Stressed", "check", "stress"]
