"""How fast ours trains beside TRL's SFTTrainer: the same model, data and tokens, in one run.

    python -m benchmarks.training [--quick] [--steps N] [--repeats K] [--vocabulary V] [--json]
    python -m benchmarks.training --checkpoint SMOLLM2 --batch 64 --steps 3 --repeats 1 --ways ours,trl [--lora 8]

A random Llama (4 layers, 192 wide; 32,000 words as Vicuna has, unless told otherwise) or a checkpoint is fine-tuned on
toy-world conversations, a third of them in the Chain-of-Utterances text, loss on the answers. One thread, fp32, AdamW.
Each way runs in a process of its own, the ways take turns, and the best of the repeats counts. Times are CPU seconds
from the end of the first step to the end of the last (loading and tokenizing are not in them); tokens are those of the
rows, padding not counted; memory is the process's peak at the end of the last step over what it had before loading.

TRL is given our rows as tokens with their masks, so that both see the same in the same steps, and the losses must
agree: the largest difference is shown. Unpacked it takes micro-batches of ``--trl-batch`` rows. Packed, ours keeps rows
apart in lines as long as the longest row; TRL's default packing (best-fit decreasing into 1,024 tokens) is given as
many tokens a step. Needs the [trl] extra.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

WAYS = ("ours", "trl", "ours packed", "trl packed")
PACKED_LINES, PACKED_LENGTH = 3, 1024


@dataclass(frozen=True)
class Work:
    """What each way does. ``lora`` 0 trains every weight; ``trl_batch`` is the rows of TRL's micro-batches."""

    folder: Path
    base: Path
    steps: int
    batch: int
    trl_batch: int
    lora: int
    rate: float


def rows(count: int) -> list[dict[str, Any]]:
    """Benign conversations of the toy world, a third of them in its CoU text."""
    from redinstruct import world
    from redinstruct.toyworld import frames

    rng = random.Random(0)
    made = []
    for n, pair in enumerate(rng.choices(world.world().pairs("plain", "train"), k=count)):
        asked, answer = world.how_to(pair, rng.randrange(len(world.HOW_TO_FORMS))).text, world.recipe(pair)
        if n % 3 == 0:
            asked = frames.prompts()["cou"].replace(frames.SLOT, asked)
            answer = f"{frames.thought(frames.ASKER, pair)} {answer}"
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        made.append({"messages": messages})
    return made


def save_model(folder: Path, vocabulary: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    from redinstruct.toyworld.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=192, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=6,
        intermediate_size=512, max_position_embeddings=2048, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Clock:
    """CPU seconds and memory from the end of the first step on, and the loss of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.began = self.ended = 0.0
        self.before = self.most = peak()

    def tick(self, loss: float) -> None:
        self.losses.append(loss)
        self.ended, self.most = time.process_time(), peak()
        if len(self.losses) == 1:
            self.began = self.ended

    def result(self, tokens: float) -> dict[str, Any]:
        seconds = self.ended - self.began
        memory = self.most - self.before
        return {"tokens": tokens, "seconds": seconds, "rate": tokens / seconds, "mib": memory, "losses": self.losses}


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def config_of(work: Work, *, packing: bool) -> Any:
    from redinstruct.alignment import Lora
    from redinstruct.safealign import AlignConfig, GuardRule, with_settings

    lora = Lora(rank=work.lora, alpha=2 * work.lora) if work.lora else None
    return AlignConfig(
        base=work.base, data=(work.folder / "rows.jsonl",), strategy="general", out=work.folder / "out",
        preset="starling", guard=GuardRule(rise=None), lora=lora,
        settings=with_settings("starling", steps=work.steps, batch=work.batch, packing=packing, deep_prefix=0.0,
                               learning_rate=work.rate, schedule="constant", warm_up=0.0, save_every=10**6),
    )  # fmt: skip


def ours(work: Work, *, packing: bool) -> dict[str, Any]:
    import torch
    import trl  # noqa: F401 - so that both ways begin with the same memory
    from peft import PeftModel  # noqa: F401

    from redinstruct.safealign import align, prepare

    torch.set_num_threads(1)
    config = config_of(work, packing=packing)
    data = prepare(config.resolved()).data()
    tokens = sum(len(row) for step in range(1, work.steps) for row in data.of_step(step)[0].values())
    clock = Clock()
    align(config, on_step=lambda one: clock.tick(one.loss))
    return clock.result(tokens)


def in_our_order(work: Work) -> list[dict[str, Any]]:
    """The rows' tokens as our steps see them, so that TRL, reading one after the other, makes the same steps."""
    from redinstruct.safealign import prepare

    data = prepare(config_of(work, packing=False).resolved()).data()
    made = [row for step in range(work.steps) for row in data.of_step(step)[0].values()]
    return [{"input_ids": list(row.input_ids), "assistant_masks": [int(w > 0) for w in row.weights]} for row in made]


def theirs(work: Work, *, packing: bool) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    trl: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    rows, clock = datasets.Dataset.from_list(in_our_order(work)), Clock()
    seen: list[float] = []

    class Listener(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if "loss" in logs:
                clock.tick(logs["loss"])
                seen.append(logs["num_tokens"])

    packed: dict[str, Any] = {"packing": True} if packing else {"train_sampling_strategy": "sequential"}
    arguments: dict[str, Any] = {
        "output_dir": str(work.folder / "trl"), "max_steps": work.steps, "learning_rate": work.rate,
        "weight_decay": 0.0, "per_device_train_batch_size": PACKED_LINES if packing else work.trl_batch,
        "gradient_accumulation_steps": 1 if packing else work.batch // work.trl_batch, "max_length": PACKED_LENGTH,
        "lr_scheduler_type": "constant", "use_cpu": True, "bf16": False, "seed": 0,
        "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no",
        "gradient_checkpointing": False,
    }  # fmt: skip
    lora = LoraConfig(r=work.lora, lora_alpha=2 * work.lora, lora_dropout=0.0, target_modules="all-linear")
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(work.base, dtype=torch.float32, local_files_only=True),
        args=trl.SFTConfig(**arguments, **packed),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(work.base, local_files_only=True),
        peft_config=lora if work.lora else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Listener())
    trainer.train()
    return clock.result(seen[-1] - seen[0])


def one_way(way: str, work: Work) -> dict[str, Any]:
    packing = way.endswith("packed")
    return (ours if way.startswith("ours") else theirs)(work, packing=packing)


def measure(work: Work, ways: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for turn in range(repeats):
        for way in ways:
            shutil.rmtree(work.folder / "out", ignore_errors=True)
            told = {name.replace("_", "-"): value for name, value in vars(work).items() if name != "base"}
            flags = [part for name, value in told.items() for part in (f"--{name}", str(value))]
            command = [sys.executable, "-m", "benchmarks.training", "--way", way, "--checkpoint", str(work.base)]
            done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{way}: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            if way not in best or found["rate"] > best[way]["rate"]:
                best[way] = found
            print(f"turn {turn + 1}, {way}: {found['rate']:,.1f} tokens per CPU-second", file=sys.stderr)
    return best


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| way | tokens per CPU-second | over TRL's | tokens | CPU s | peak MiB | first loss | last loss |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for way, one in found.items():
        over = one["rate"] / found.get(way.replace("ours", "trl"), one)["rate"]
        lines.append(
            f"| {way} | {one['rate']:,.1f} | {over:.2f} | {one['tokens']:,.0f} | {one['seconds']:.1f}"
            f" | {one['mib']:,.0f} | {one['losses'][0]:.4f} | {one['losses'][-1]:.4f} |"
        )
    if not {"ours", "trl"} <= found.keys():
        return "\n".join(lines)
    apart = max(abs(a - b) for a, b in zip(found["ours"]["losses"], found["trl"]["losses"], strict=True))
    lines += ["", f"Unpacked losses of the same steps, ours and TRL's: at most {apart:.1e} apart."]
    if packed := found.get("ours packed"):
        own = max(abs(a - b) for a, b in zip(found["ours"]["losses"], packed["losses"], strict=True))
        lines += [f"Ours packed and unpacked: at most {own:.1e} apart."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint, instead of a random small one")
    parser.add_argument("--batch", type=int, default=32, help="rows a step")
    parser.add_argument("--trl-batch", type=int, help="rows of TRL's micro-batches (its default is 8; here --batch)")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--quick", action="store_true", help="4 steps, once")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=1e-3, help="the learning rate")
    flags = parser.parse_args()
    steps, repeats = (4, 1) if flags.quick else (flags.steps, flags.repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = flags.folder or Path(name)
        base = flags.checkpoint or folder / "model"
        work = Work(folder, base, steps, flags.batch, flags.trl_batch or flags.batch, flags.lora, flags.rate)
        if flags.way:
            print(json.dumps(one_way(flags.way, work)))
            return
        if flags.checkpoint is None:
            save_model(base, flags.vocabulary)
        text = "".join(json.dumps(row) + "\n" for row in rows(steps * work.batch))
        (folder / "rows.jsonl").write_text(text)
        found = measure(work, flags.ways.split(","), repeats)
    print(json.dumps(found) if flags.json else table(found))


if __name__ == "__main__":
    main()
