"""``redinstruct align --fsdp`` on CPUs, for the tests: ``torchrun ... -m tests.support.fsdp_on_cpu align ...``.

Everything from our command down to torch's ``fully_shard`` over gloo runs as on GPUs. Two refusals are lifted for it:
ours of ``--fsdp`` without a GPU, and accelerate's, which on CPUs keeps to DDP without a word. ``BF16=1`` asks for mixed
precision, as is always done on a GPU; ``PIDS`` is a folder for the processes' numbers.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from redinstruct.cli import main


def lift_refusals() -> None:
    """Let FSDP2 be used on CPUs, in this process."""
    run: Any = importlib.import_module("redinstruct.safealign.align")
    trainer: Any = importlib.import_module("redinstruct.safealign.trainer")
    run.check_world = lambda *_, **__: None
    usual = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        usual(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            # What accelerate does for every kind of device but this one (AcceleratorState.__init__, 1.15).
            self.distributed_type = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = init
    if os.environ.get("BF16"):
        arguments = trainer.TrainingArguments
        trainer.TrainingArguments = lambda **given: arguments(**{**given, "bf16": True})


if __name__ == "__main__":
    if folder := os.environ.get("PIDS"):  # torchrun puts its workers into sessions of their own
        (Path(folder) / os.environ["RANK"]).write_text(str(os.getpid()))
    lift_refusals()
    sys.exit(main(sys.argv[1:]))
