"""A checkpoint read from a folder: the one place where weights and tokenizers are loaded to be run or trained.

Promised: no code of the checkpoint is run, nothing is downloaded, and what is loaded is what the files hold: a tensor
that is missing (and would be random) or that nobody reads is refused, in one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from redinstruct import checkpoints
from redinstruct.checkpoints.products import quickened
from redinstruct.errors import ModelSpecError
from redinstruct.safetext import terminal


def check_folder(folder: Path, shown: str) -> None:
    """Pass a safe causal checkpoint, of which nothing has been loaded yet (:func:`checkpoints.check`).

    Raises:
        ModelSpecError: it is refused.
    """
    checkpoints.check(folder, shown, own=CONFIG_MAPPING)


def load_tokenizer(folder: Path, shown: str) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer.

    Raises:
        ModelSpecError: there is none that transformers can load.
    """
    try:
        with without_progress_bars():
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers lets through whatever a stranger's file makes it run into
        raise ModelSpecError(f"{shown}: its tokenizer cannot be loaded ({_reason(error, folder, shown)})") from None
    return found


def load_causal(folder: Path, shown: str, *, dtype: torch.dtype | str = "auto", **more: Any) -> PreTrainedModel:
    """The checkpoint's weights in its architecture, on the CPU unless ``more`` (``from_pretrained``'s) says otherwise.

    ``dtype`` "auto" is what any program gets that names none: the configuration's, else that of the files.

    Raises:
        ModelSpecError: transformers cannot load it, or a tensor of it is missing or surplus.
    """
    try:
        with without_progress_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **more,
            )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise ModelSpecError(f"{shown}: transformers cannot load it ({_reason(error, folder, shown)})") from None
    model, found = loaded
    checkpoints.check_loaded(found, shown)
    made: PreTrainedModel = quickened(model)
    return made


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing on the terminal, and from its own report of a load; the caller's is one line."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        yield
    finally:
        logging.set_verbosity(level)  # type: ignore[no-untyped-call, unused-ignore]
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]


def _reason(error: BaseException, folder: Path, shown: str) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return terminal(line.replace(str(folder), shown))[:200]


def devices() -> tuple[str, ...]:
    """What torch can compute on here, in words, the one that is taken by itself first."""
    found = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            found.append(f"cuda:{number} ({about.name}, {about.total_memory / 1e9:.0f} GB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, f"cpu ({torch.get_num_threads()} threads)")
