"""Chat templates tried in a process of their own before they are rendered in ours: they are programs from strangers.

A template can loop for ever or build a string that fills the memory; Jinja's sandbox forbids neither. The child has
limits of processor time and memory, and renders a few short conversations. What ends there in an error of Jinja passes:
whoever renders it says so. Not promised: a template that is well behaved on these and not on others.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redinstruct.errors import ModelSpecError

CPU_SECONDS = 5
MEMORY = 512 << 20
LONGEST = 1 << 20
_WALL_SECONDS = 120.0

_CHILD = """
import json, resource, sys
cpu, memory, longest = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import jinja2, jinja2.ext, jinja2.sandbox
text = sys.stdin.buffer.read().decode("utf-8", "replace")
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)
def stop(words): raise jinja2.TemplateError(words)
turns = [{"role": r, "content": c} for r, c in (("system", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"))]
try:
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda value, **more: json.dumps(value)
    env.globals.update(raise_exception=stop, strftime_now=lambda form: "2000-01-01")
    made = env.from_string(text)
    for some in (turns[1:2], turns[:2], turns[1:], turns):
        for begins in (False, True):
            try:
                out = made.render(messages=some, add_generation_prompt=begins, bos_token="<s>", eos_token="</s>",
                                  pad_token="", unk_token="", tools=None, documents=None)
            except MemoryError:
                raise
            except Exception:
                continue
            if len(out) > longest: sys.exit(4)
except MemoryError:
    sys.exit(3)
except Exception:
    pass
"""


def check_chat_templates(folder: Path, shown: str) -> None:
    """Try every chat template that a checkpoint folder brings.

    Raises:
        ModelSpecError: one takes too long, too much memory, or gives too long a text.
    """
    for name, text in _templates(folder):
        if (wrong := probed(text)) is not None:
            raise ModelSpecError(f"{shown}: the chat template in {name} {wrong}; it is not used")


@functools.lru_cache(maxsize=64)
def probed(template: str) -> str | None:
    """What is wrong with a template; None: nothing that the limits found."""
    limits = json.dumps([CPU_SECONDS, MEMORY, LONGEST])
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, with the lines above
            [sys.executable, "-I", "-c", _CHILD, limits],
            input=template.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode == 4:
        return f"makes more than {LONGEST >> 20} MiB of a short conversation"
    if done.returncode == 3:
        return f"takes more than {MEMORY >> 20} MiB of memory for a short conversation"
    return None if done.returncode == 0 else f"does not end within {CPU_SECONDS} s on a short conversation"


def _templates(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((*folder.glob("chat_template*.jinja"), *folder.glob("*chat_templates/*.jinja"))):
        yield path.name, path.read_text(encoding="utf-8", errors="replace")
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        try:
            held: Any = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # whoever loads it says so
        found = held.get("chat_template") if isinstance(held, dict) else None
        for entry in found if isinstance(found, list) else [found]:
            text = entry.get("template") if isinstance(entry, dict) else entry
            if isinstance(text, str):
                yield name, text
