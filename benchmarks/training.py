"""How fast ours trains beside TRL's SFTTrainer: the same model, data and tokens, in one run.

    python -m benchmarks.training [--quick] [--steps N] [--repeats K] [--vocabulary V] [--json]

A random Llama (4 layers, 192 wide; 32,000 words as Vicuna has, unless told otherwise) is fine-tuned on toy-world
conversations, a third of them in the Chain-of-Utterances text: rows of 12 to about 240 tokens, loss on the answers. One
thread, fp32, AdamW. Each
way runs in a process of its own, the ways take turns, and the best of the repeats counts. Times are CPU seconds from
the end of the first step to the end of the last (loading and tokenizing are not in them); tokens are those of the rows,
padding not counted; memory is the process's peak over what it had before the first step.

Unpacked, both see the same rows in the same steps, so that the losses must agree: the largest difference is shown.
Packed, ours keeps rows apart in lines as long as the longest row; TRL's default packing (best-fit decreasing into 1,024
tokens) is given as many tokens a step. Needs the [trl] extra.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

WAYS = ("ours", "trl", "ours packed", "trl packed")
BATCH, PACKED_LINES, PACKED_LENGTH = 32, 3, 1024


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
        self.memory = peak()

    def tick(self, loss: float) -> None:
        self.losses.append(loss)
        self.ended = time.process_time()
        if len(self.losses) == 1:
            self.began = self.ended

    def result(self, tokens: float) -> dict[str, Any]:
        seconds = self.ended - self.began
        memory = peak() - self.memory
        return {"tokens": tokens, "seconds": seconds, "rate": tokens / seconds, "mib": memory, "losses": self.losses}


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(folder: Path, steps: int, *, packing: bool) -> dict[str, Any]:
    import torch
    import trl  # noqa: F401 - so that both ways begin with the same memory
    from peft import PeftModel  # noqa: F401

    from redinstruct.safealign import AlignConfig, GuardRule, align, prepare, with_settings

    torch.set_num_threads(1)
    config = AlignConfig(
        base=folder / "model", data=(folder / "rows.jsonl",), strategy="general", out=folder / f"out-{packing}",
        preset="starling", guard=GuardRule(rise=None),
        settings=with_settings("starling", steps=steps, batch=BATCH, packing=packing, learning_rate=1e-3,
                               schedule="constant", warm_up=0.0, save_every=10**6),
    )  # fmt: skip
    data = prepare(config.resolved()).data()
    tokens = sum(len(row) for step in range(1, steps) for row in data.of_step(step)[0].values())
    clock = Clock()
    align(config, on_step=lambda one: clock.tick(one.loss))
    return clock.result(tokens)


def in_our_order(folder: Path, steps: int) -> list[dict[str, Any]]:
    """The rows as our steps see them, so that TRL, reading one after the other, makes the same steps."""
    from redinstruct.safealign import AlignConfig, prepare, with_settings

    config = AlignConfig(
        base=folder / "model", data=(folder / "rows.jsonl",), strategy="general", out=folder / "nowhere",
        preset="starling", settings=with_settings("starling", steps=steps, batch=BATCH),
    )  # fmt: skip
    data = prepare(config.resolved()).data()
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [lines[i] for step in range(steps) for i in data.of_step(step)[0]]


def theirs(folder: Path, steps: int, *, packing: bool) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    trl: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    clock = Clock()
    seen: list[float] = []

    class Listener(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if "loss" in logs:
                clock.tick(logs["loss"])
                seen.append(logs["num_tokens"])

    packed: dict[str, Any] = {"packing": True} if packing else {"train_sampling_strategy": "sequential"}
    arguments: dict[str, Any] = {
        "output_dir": str(folder / "trl"), "max_steps": steps, "learning_rate": 1e-3, "weight_decay": 0.0,
        "per_device_train_batch_size": PACKED_LINES if packing else BATCH, "max_length": PACKED_LENGTH,
        "assistant_only_loss": True, "lr_scheduler_type": "constant", "use_cpu": True, "bf16": False, "seed": 0,
        "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no",
        "gradient_checkpointing": False,
    }  # fmt: skip
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, local_files_only=True),
        args=trl.SFTConfig(**arguments, **packed),
        train_dataset=datasets.Dataset.from_list(in_our_order(folder, steps)),
        processing_class=AutoTokenizer.from_pretrained(folder / "model", local_files_only=True),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Listener())
    clock.memory = min(clock.memory, peak())
    trainer.train()
    return clock.result(seen[-1] - seen[0])


def one_way(way: str, folder: Path, steps: int) -> dict[str, Any]:
    packing = way.endswith("packed")
    return (ours if way.startswith("ours") else theirs)(folder, steps, packing=packing)


def measure(folder: Path, steps: int, repeats: int) -> dict[str, dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for turn in range(repeats):
        for way in WAYS:
            for left in folder.glob("out-*"):
                subprocess.run(["rm", "-rf", str(left)], check=True)
            command = [sys.executable, "-m", "benchmarks.training", "--way", way, "--folder", str(folder)]
            done = subprocess.run([*command, "--steps", str(steps)], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{way}: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            if way not in best or found["rate"] > best[way]["rate"]:
                best[way] = found
            print(f"turn {turn + 1}, {way}: {found['rate']:,.0f} tokens per CPU-second", file=sys.stderr)
    return best


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| way | tokens per CPU-second | over TRL's | tokens | CPU s | peak MiB | first loss | last loss |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for way in WAYS:
        one = found[way]
        over = one["rate"] / found[way.replace("ours", "trl")]["rate"]
        lines.append(
            f"| {way} | {one['rate']:,.0f} | {over:.2f} | {one['tokens']:,.0f} | {one['seconds']:.1f}"
            f" | {one['mib']:,.0f} | {one['losses'][0]:.4f} | {one['losses'][-1]:.4f} |"
        )
    apart = max(abs(a - b) for a, b in zip(found["ours"]["losses"], found["trl"]["losses"], strict=True))
    own = max(abs(a - b) for a, b in zip(found["ours"]["losses"], found["ours packed"]["losses"], strict=True))
    lines += ["", f"Unpacked losses of the same steps, ours and TRL's: at most {apart:.1e} apart.",
              f"Ours packed and unpacked: at most {own:.1e} apart."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--quick", action="store_true", help="4 steps, once")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.way:
        print(json.dumps(one_way(flags.way, flags.folder, flags.steps)))
        return
    steps, repeats = (4, 1) if flags.quick else (flags.steps, flags.repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", flags.vocabulary)
        text = "".join(json.dumps(row) + "\n" for row in rows(steps * BATCH))
        (folder / "rows.jsonl").write_text(text)
        found = measure(folder, steps, repeats)
    print(json.dumps(found) if flags.json else table(found))


if __name__ == "__main__":
    main()
