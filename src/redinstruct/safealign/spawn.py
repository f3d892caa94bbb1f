"""An alignment on several processes of this machine, started by a program that is one: torchrun, and us in it.

The configuration goes as a file, for not all of it has flags; what became of the run comes back as another.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.alignment import AlignConfig
from redinstruct.errors import RedInstructError, TrainingFailed, UsageError
from redinstruct.files.atomic import write_file
from redinstruct.files.opening import read_json
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.safealign.align import align
from redinstruct.safealign.launch import is_main_process
from redinstruct.safealign.outcome import Aligned, GuardStopped, StepFigures

_CONFIG, _RESULT, _PROGRESS = "config.json", "result.json", "progress.json"
_LOOK_EVERY = 0.5
"""Seconds between two looks at how far the run is."""


_RAISED = (UsageError, TrainingFailed, RedInstructError)


class _Result(msgspec.Struct):
    """What became of a run: a finished alignment, or why there is none."""

    done: Aligned | None = None
    raised: str = ""
    why: str = "the run was interrupted; the same call goes on"


def align_in_processes(config: AlignConfig, processes: int, on_progress: OnProgress = unheard) -> Aligned:
    """:func:`redinstruct.safealign.align` on ``processes`` processes, one for each GPU, or on the CPU over gloo.

    ``on_progress`` hears of steps. The same call goes on where a run was interrupted.

    Raises:
        GuardStopped, UsageError, TrainingFailed, RedInstructError: as :func:`redinstruct.safealign.align` raises them.
    """
    config = msgspec.structs.replace(config, processes=processes)
    with tempfile.TemporaryDirectory(prefix="redinstruct-") as name:
        folder = Path(name)
        write_file(folder / _CONFIG, msgspec.json.encode(config, enc_hook=str))
        code = _watched(folder, processes, on_progress)
        try:
            result = msgspec.json.decode((folder / _RESULT).read_bytes(), type=_Result, dec_hook=_path)
        except (OSError, msgspec.DecodeError):
            raise RedInstructError(
                f"the {processes} processes ended with exit code {code} and said nothing; what was saved is intact"
            ) from None
    if result.done is not None:
        return result.done
    if result.raised == GuardStopped.__name__:
        raise GuardStopped(result.why, ())
    raise next(kind for kind in _RAISED if kind.__name__ in (result.raised, RedInstructError.__name__))(result.why)


def _watched(folder: Path, processes: int, on_progress: OnProgress) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "-m", "redinstruct.safealign.spawn", str(folder)]  # fmt: skip
    environment = {**os.environ}
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:  # noqa: S603 - ours
        told: list[int] = []
        while True:
            try:
                return process.wait(_LOOK_EVERY)
            except subprocess.TimeoutExpired:
                if (found := read_json(folder / _PROGRESS, list[int])) and found != told:
                    on_progress(Progress(found[0], found[1]))
                    told = found
            except BaseException:
                process.terminate()  # torchrun passes it on; each process saves its state after its step
                process.wait()
                raise


def _path(kind: type, value: object) -> Any:
    return Path(str(value)) if kind is Path else value


def main(folder: Path) -> int:
    """One of the processes."""
    config = msgspec.json.decode((folder / _CONFIG).read_bytes(), type=AlignConfig, dec_hook=_path)

    def on_step(figures: StepFigures) -> None:
        write_file(folder / _PROGRESS, msgspec.json.encode([figures.step, figures.steps]))

    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        result = _Result(done=align(config, on_step, should_stop=lambda: bool(asked)))
    except KeyboardInterrupt:
        result = _Result()
    except RedInstructError as error:
        kind = next(one for one in (GuardStopped, *_RAISED) if isinstance(error, one))
        result = _Result(raised=kind.__name__, why=str(error))
    if is_main_process() or result.done is None:
        write_file(folder / _RESULT, msgspec.json.encode(result, enc_hook=str))
    return 0 if result.done is not None else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
