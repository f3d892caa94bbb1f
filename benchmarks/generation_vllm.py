"""vLLM's CPU build on the prompts of ``benchmarks.generation --checkpoint``, run by the Python that has vLLM.

    VLLM_PYTHON benchmarks/generation_vllm.py CHECKPOINT PROMPTS.json NEW > ANSWERS.json

In one process, so that CPU seconds are those of all its threads. PROMPTS.json holds two lists: the first is answered to
warm up, the second twice, each told apart (greedy, float32, prefix caching on, no end token). Imports nothing of ours.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

for name, value in {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "3",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}.items():  # fmt: skip
    os.environ.setdefault(name, value)


def main() -> None:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found, unused-ignore]

    checkpoint, (before, prompts), new = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])
    said = os.dup(1)  # vLLM writes to standard output
    os.dup2(2, 1)
    model = LLM(checkpoint, dtype="float32", max_model_len=2048, max_num_seqs=64, enable_prefix_caching=True)
    started = time.process_time()
    how = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)

    def answered(some: list[list[int]]) -> dict[str, Any]:
        began = time.process_time()
        made = model.generate([{"prompt_token_ids": one} for one in some], how, use_tqdm=False)
        seconds = time.process_time() - began
        found = sum(one.num_cached_tokens or 0 for one in made) / len(made)
        return {"seconds": seconds, "cached": found, "answers": [list(one.outputs[0].token_ids) for one in made]}

    answered(before)
    told = {"start": started, "new": answered(prompts), "again": answered(prompts)}
    with os.fdopen(said, "w") as out:
        json.dump(told, out)


if __name__ == "__main__":
    main()
