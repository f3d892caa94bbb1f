"""Stage 3, SAFE-ALIGN: rows and masks, losses, the trainer, RESTA. Takes rows and an ``on_evaluate`` callback."""

from __future__ import annotations

from redinstruct.alignment import TRL_STRATEGIES, AlignConfig, GuardRule, Lora, Settings, preset_for, with_settings
from redinstruct.safealign.align import align
from redinstruct.safealign.launch import is_main_process
from redinstruct.safealign.outcome import Aligned, GuardStopped, StepFigures
from redinstruct.safealign.plan import MemoryPlan, machine_of
from redinstruct.safealign.planning import plan_alignment
from redinstruct.safealign.prepare import Prepared, pictures, prepare
from redinstruct.safealign.spawn import align_in_processes

__all__ = [
    "TRL_STRATEGIES", "AlignConfig", "Aligned", "GuardRule", "GuardStopped", "Lora", "MemoryPlan", "Prepared",
    "Settings", "StepFigures", "align", "align_in_processes", "is_main_process", "machine_of", "pictures",
    "plan_alignment", "prepare", "preset_for", "with_settings",
]  # fmt: skip
