"""vLLM's CPU build on the prompts of ``benchmarks.generation --checkpoint``, run by the Python that has vLLM.

    VLLM_PYTHON benchmarks/generation_vllm.py CHECKPOINT PROMPTS.json NEW > ANSWERS.json

In one process, so that CPU seconds are those of all its threads. Once started, the prompts are answered
twice; the second time counts (greedy, float32, prefix caching on, no end token). Imports nothing of ours.
"""

import json
import os
import sys
import time
from pathlib import Path

for name, value in {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "3",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}.items():  # fmt: skip
    os.environ.setdefault(name, value)


def main() -> None:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found, unused-ignore]

    checkpoint, prompts, new = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])
    said = os.dup(1)  # vLLM writes to standard output
    os.dup2(2, 1)
    model = LLM(checkpoint, dtype="float32", max_model_len=2048, max_num_seqs=64, enable_prefix_caching=True)
    started = time.process_time()
    how = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    for _ in range(2):
        began = time.process_time()
        made = model.generate(asked, how, use_tqdm=False)
        seconds = time.process_time() - began
    answers = [list(one.outputs[0].token_ids) for one in made]
    with os.fdopen(said, "w") as out:
        json.dump({"seconds": seconds, "start": started, "answers": answers}, out)


if __name__ == "__main__":
    main()
