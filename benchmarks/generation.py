"""What sharing the prompt's prefix buys: the same batch with and without it, beside two other ways, in one run.

    python -m benchmarks.generation [--quick] [--sizes 0.4M,5M,100M] [--new 16,48,160,500] [--json]
    python -m benchmarks.generation --checkpoint SMOLLM2 [--vllm PYTHON] [--new 48,160] [--batch 32] [--json]

Random Llamas of 0.4, 5 and 100 million parameters answer prompts in the proportions of a Chain-of-Utterances text: of
about 450 tokens, 330 precede the question and are the same for all. No end token, so that every way makes equally many
tokens. Greedy, fp32, one thread. Times are CPU seconds of this process (the best of the repeats, which take turns), so
that another load on the machine distorts them little. The answers of every way are compared token for token.

With --checkpoint a real model is asked harmless questions in the shipped CoU prompt: ours, one batch of transformers'
``generate`` and, with --vllm (the Python of an environment that holds vLLM), vLLM's CPU build. Ours and vLLM have
answered as many other questions in the same prompt before, as in the middle of a run, and then answer these (``new``),
and these once more (``again``: vLLM then finds the blocks of each whole prompt, ours the shared beginning alone).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from redinstruct.checkpoints.loading import load_causal
from redinstruct.checkpoints.products import packed
from redinstruct.models.decoding import Decoding, Generator
from redinstruct.models.prefix_cache import CausalModel, Ids, common_prefix

PREFIX, TAIL, QUESTION = 330, 110, (8, 18)
TIE = 1e-4


class Size(msgspec.Struct, frozen=True):
    """A random Llama, and how many prompts it is asked: all at once, and for the slow ways fewer."""

    name: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    batch: int
    alone: int
    repeats: int


SIZES = (
    Size("0.4M", 128, 2, 4, 467, batch=32, alone=4, repeats=5),
    Size("5M", 256, 6, 8, 2000, batch=32, alone=2, repeats=3),
    Size("100M", 768, 12, 12, 16000, batch=16, alone=1, repeats=1),
)


class Row(msgspec.Struct, frozen=True):
    """CPU milliseconds per prompt of each way, None where it was not run. ``equal`` of ``compared`` answers agree."""

    size: str
    parameters: int
    new: int
    shared: float
    unshared: float
    speed_up: float
    alone: float
    continuous: float | None
    equal: int
    compared: int
    widest_tie: float
    continuous_note: str = ""


def model_of(size: Size) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        intermediate_size=size.hidden * 8 // 3 // 16 * 16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        # Wide enough that the best two logits of a random model are rarely alike.
        initializer_range=2.4 / size.hidden**0.5,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config)
    model.eval()  # type: ignore[no-untyped-call, unused-ignore]
    model.generation_config.eos_token_id = None
    return model


def prompts_of(size: Size) -> list[Ids]:
    rng = random.Random(0)

    def some(count: int) -> Ids:
        return tuple(rng.randrange(3, size.vocabulary) for _ in range(count))

    head, tail = some(PREFIX), some(TAIL)
    return sorted((head + some(rng.randint(*QUESTION)) + tail for _ in range(size.batch)), key=len)


def timed(work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def batched(model: CausalModel, prompts: Sequence[Ids], new: int, *, share: bool) -> list[list[int]]:
    """A new generator each time: the prefix is computed within the time that is measured."""
    generator = Generator(model, [], 0, str, share_prefix=share)
    return [generated.ids for generated in generator(prompts, [Decoding(new)] * len(prompts))]


def one_by_one(model: Any, prompts: Sequence[Ids], new: int) -> list[list[int]]:
    """transformers' own ``generate``, one prompt at a time."""
    made = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)
        made.append(out[0, len(prompt) :].tolist())
    return made


def continuous(model: Any, prompts: Sequence[Ids], new: int) -> list[list[int]]:
    """transformers' continuous batching, with limits that suit a CPU (without them it was far slower)."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    out = model.generate_batch(
        inputs=[list(prompt) for prompt in prompts],
        generation_config=GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=400, max_batch_tokens=2048, page_size=32),
        warmup=False,
    )
    order = sorted(out, key=lambda name: int(name.rsplit("_", 1)[-1]))
    return [list(out[name].generated_tokens)[:new] for name in order]


def queued(model: Any, prompts: Sequence[Ids], new: int, expected: list[list[int]]) -> tuple[float | None, str]:
    """Continuous batching: CPU milliseconds per prompt and how many answers agree, or None and why it does not run."""
    try:
        seconds, made = timed(lambda: continuous(model, prompts, new))
    except Exception as error:  # the point of the row is to say why
        return None, f"does not run: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return 1000 * seconds / len(
        prompts
    ), f"{sum(a == b for a, b in zip(made, expected, strict=False))}/{len(made)} equal"


def tie_at(model: Any, prompt: Ids, one: Sequence[int], other: Sequence[int]) -> float:
    """How far apart the two best logits lie where two answers part; 0 for equal answers."""
    if list(one) == list(other):
        return 0.0
    at = common_prefix([tuple(one), tuple(other)])
    with torch.inference_mode():
        best, second = model(torch.tensor([[*prompt, *one[:at]]])).logits[0, -1].topk(2).values.tolist()
    return float(best - second)


def measure(size: Size, model: Any, new: int, *, with_continuous: bool) -> Row:
    causal, prompts = CausalModel(model), prompts_of(size)
    best = {True: float("inf"), False: float("inf")}
    answers: dict[bool, list[list[int]]] = {}
    for _ in range(size.repeats if new < 500 else 1):
        for share in (True, False):
            seconds, answers[share] = timed(lambda share=share: batched(causal, prompts, new, share=share))  # type: ignore[misc]
            best[share] = min(best[share], seconds)
    few = prompts[: size.alone]
    alone, singly = timed(lambda: one_by_one(model, few, new))
    pairs = list(zip(prompts, answers[True], answers[False], strict=True))
    pairs += list(zip(few, answers[True], singly, strict=False))
    ties = [tie_at(model, *pair) for pair in pairs]
    queue, note = queued(model, prompts[: max(4, size.alone)], new, answers[True]) if with_continuous else (None, "")
    return Row(
        size=size.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        new=new,
        shared=1000 * best[True] / len(prompts),
        unshared=1000 * best[False] / len(prompts),
        speed_up=best[False] / best[True],
        alone=1000 * alone / len(few),
        continuous=queue,
        equal=sum(one == other for _, one, other in pairs),
        compared=len(pairs),
        widest_tie=max(ties),
        continuous_note=note,
    )


def asked_of(tokenizer: Any, count: int) -> list[Ids]:
    """Harmless toy-world questions in the shipped CoU prompt, as the checkpoint's own template writes them."""
    from redinstruct import world
    from redinstruct.prompts.templates import load_template, render

    cou = load_template("cou")
    pairs = world.world().pairs("plain", "test")[:count]
    texts = [render(cou, world.how_to(pair, 0).text) for pair in pairs]
    chats = [[{"role": "user", "content": text}] for text in texts]
    made = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]
    return [tuple(ids) for ids in made]


def in_one_batch(model: Any, prompts: Sequence[Ids], new: int) -> list[list[int]]:
    """transformers' own ``generate``, all prompts at once, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)
    return [row[longest:].tolist() for row in out]


def in_vllm(python: str, checkpoint: Path, before: Sequence[Ids], prompts: Sequence[Ids], new: int) -> dict[str, Any]:
    """Seconds, seconds to start, cached tokens and answers of vLLM in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([list(map(list, before)), list(map(list, prompts))], file)
        file.flush()
        script = str(Path(__file__).with_name("generation_vllm.py"))
        command = [python, script, str(checkpoint), file.name, str(new)]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return found


def real(
    checkpoint: Path, lengths: Sequence[int], batch: int, vllm: str | None, *, generate: bool
) -> list[dict[str, Any]]:
    """CPU seconds an attempt of each way, and how many answers equal ours."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)
    # As hf/ models are loaded.
    model: Any = packed(load_causal(checkpoint, checkpoint.name, dtype=torch.float32).eval())
    model.generation_config.eos_token_id = None
    plain: Any = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    plain.generation_config.eos_token_id = None
    asked = asked_of(tokenizer, 2 * batch)
    before, prompts = sorted(asked[:batch], key=len), sorted(asked[batch:], key=len)
    generator = Generator(CausalModel(model), [], 0, str)

    def answered(some: Sequence[Ids], new: int) -> list[list[int]]:
        return [made.ids for made in generator(some, [Decoding(new)] * len(some))]

    answered(before, 2)
    rows = []
    for new in lengths:
        seconds, answers = timed(lambda new=new: answered(prompts, new))  # type: ignore[misc]
        ways = {"ours": (seconds, answers)}
        ways["ours, again"] = timed(lambda new=new: answered(prompts, new))  # type: ignore[misc]
        if generate:
            ways["generate, one batch"] = timed(lambda new=new: in_one_batch(plain, prompts, new))  # type: ignore[misc]
        if vllm is not None:
            found = in_vllm(vllm, checkpoint, before, prompts, new)
            for name, one in (("vLLM", found["new"]), ("vLLM, again", found["again"])):
                ways[f"{name} ({one['cached']:.0f} tokens a prompt found)"] = one["seconds"], one["answers"]
        for way, (took, made) in ways.items():
            equal = sum(one == other for one, other in zip(made, answers, strict=True))
            rows.append({"new": new, "way": way, "seconds": took / len(prompts), "ours over it": seconds / took,
                         "equal": f"{equal}/{len(prompts)}"})  # fmt: skip
    return rows


def shown(rows: Sequence[Row]) -> str:
    columns = (
        "model",
        "new tokens",
        "shared",
        "unshared",
        "speed-up",
        "one at a time",
        "continuous",
        "equal",
        "widest tie",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        waiting = f"{row.continuous:.1f} ({row.continuous_note})" if row.continuous else row.continuous_note
        lines.append(
            f"| {row.size} | {row.new} | {row.shared:.1f} | {row.unshared:.1f} | {row.speed_up:.2f} | {row.alone:.1f} "
            f"| {waiting} | {row.equal}/{row.compared} | {row.widest_tie:.1e} |"
        )
    return "\n".join(lines)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| new tokens | way | CPU s an attempt | ours over it | equal to ours |", "|--:|---|--:|--:|--:|"]
    lines += [
        f"| {row['new']} | {row['way']} | {row['seconds']:.3f} | {row['ours over it']:.2f} | {row['equal']} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.4M and 5M, 16 and 48 new tokens, one repeat")
    parser.add_argument("--sizes", default="0.4M,5M,100M")
    parser.add_argument("--new", default="16,48,160,500")
    parser.add_argument("--no-continuous", action="store_true", help="leave transformers' continuous batching out")
    parser.add_argument("--checkpoint", type=Path, metavar="SMOLLM2")
    parser.add_argument("--no-generate", action="store_true", help="leave transformers' generate out")
    parser.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call, unused-ignore]
    sizes = [size for size in SIZES if size.name in given.sizes.split(",")]
    lengths = [int(length) for length in given.new.split(",")]
    if given.checkpoint is not None:
        found = real(given.checkpoint, lengths, given.batch, given.vllm, generate=not given.no_generate)
        print(json.dumps(found, indent=1) if given.json else _table(found))
        return 0
    if given.quick:
        sizes = [msgspec.structs.replace(size, repeats=1) for size in sizes if size.name != "100M"]
        lengths = [length for length in lengths if length <= 48]
    rows = []
    for size in sizes:
        model = model_of(size)
        batched(CausalModel(model), prompts_of(size), 2, share=True)  # warm the caches of torch itself
        for new in lengths:
            rows.append(measure(size, model, new, with_continuous=not given.no_continuous))
            if not given.json:
                print(shown(rows[-1:]).splitlines()[-1], flush=True)
    if given.json:
        print(json.dumps([msgspec.to_builtins(row) for row in rows], indent=1))
    else:
        print(f"\nCPU milliseconds per prompt; transformers {transformers.__version__}, torch {torch.__version__}")
        print(shown(rows))
    if (worst := max(row.widest_tie for row in rows)) >= TIE:
        print(f"answers part where the two best logits lie {worst:.1e} apart: more than {TIE:.0e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
