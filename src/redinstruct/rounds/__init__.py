"""The stages wired together: the closed loop from one TOML file, and the demo, which is the loop on the toy world."""

from __future__ import annotations

from redinstruct.rounds.config import LoopConfig, read_config
from redinstruct.rounds.demo import Demo, DemoRow, demo
from redinstruct.rounds.ledger import Stage
from redinstruct.rounds.run import BASE, LoopResult, Measured, carry_out

__all__ = [
    "BASE", "Demo", "DemoRow", "LoopConfig", "LoopResult", "Measured", "Stage", "carry_out", "demo", "read_config",
]  # fmt: skip
