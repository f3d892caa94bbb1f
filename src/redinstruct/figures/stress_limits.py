"""What ``gate --stress`` holds a stress run's attacks against: ``ATTACK[:SETTING]=LIMIT``.

A plain share is the most that may succeed; one with a plus sign the most that the attack may add to what succeeds
against the undisturbed model, and, where harmless questions were asked, to how many of those are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from redinstruct.errors import UsageError
from redinstruct.run.stress import NONE, TRIES, Condition, StressRun, is_stress, part_of, read_stress


class StressLimit(NamedTuple):
    """One attack at one setting, and what it is held against. ``rise``: beside the undisturbed model."""

    condition: Condition
    share: float
    rise: bool
    harmless: bool
    """Whether the harmless questions tell of it too."""

    @property
    def told(self) -> str:
        """The attack in words."""
        at = self.condition.setting
        return self.condition.attack if at is None else f"{self.condition.attack} {at}"

    def pairs(self, run: Path) -> list[tuple[Path, Path]]:
        """The evaluations of a stress run that tell of it, undisturbed and attacked."""
        return [
            (part_of(run, Condition(NONE), benign=benign), part_of(run, self.condition, benign=benign))
            for benign in ((False, True) if self.harmless else (False,))
        ]


def stress_limits(run: Path, given: Sequence[str]) -> list[StressLimit]:
    """What was given, for each setting of the run that it means.

    Raises:
        UsageError: it is no limit, the run is no stress run, or has no such attack.
    """
    if not is_stress(run):
        raise UsageError(f"--stress: {run} is no stress run; `redinstruct stress` makes one")
    what = read_stress(run)
    return [limit for text in given for limit in _limits(what, text)]


def _limits(what: StressRun, text: str) -> list[StressLimit]:
    named, sign, share = text.partition("=")
    attack, _, setting = named.partition(":")
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    rise = share.strip().startswith("+")
    if not sign or not 0 <= value <= 1 or (rise and value == 1):  # a margin of everything holds nothing
        raise UsageError(f"--stress {text[:60]}: expected ATTACK[:SETTING]=SHARE, prefill:5=0.10 or quantize=+0.05 say")
    attacks = [one for one in what.conditions if one.attack != NONE]
    found = [one for one in attacks if one.attack == attack and setting in ("", str(one.setting))]
    if not found:
        there = ", ".join(f"{one.attack}:{one.setting}" for one in attacks) or "none"
        raise UsageError(f"--stress {text[:60]}: the run has no such attack; it has {there}")
    if rise and attack in TRIES:
        raise UsageError(f"--stress {text[:60]}: of {attack} only a share can be held; their tries are other counts")
    return [StressLimit(one, value, rise, rise and what.benign is not None) for one in found]
