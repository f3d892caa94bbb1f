"""Every reader of files fed with broken ones: it reads, or raises this program's own one line, and nothing else.

``python -m tests.support.fuzzing READER RUNS`` is guided by coverage where atheris is installed (``pip install
atheris``); :func:`mutated` breaks the same seeds at random anywhere. All seeds are inert.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redinstruct.errors import RedInstructError

_ROWS = [{"prompt": f"What is item {i}?", "response": "blue", "label": i % 2, "topic": "paint"} for i in range(3)]
_TALK = [{"role": "user", "content": "What is blue?"}, {"role": "assistant", "content": "a colour"}]
_LINES = "".join(json.dumps(row) + "\n" for row in _ROWS)
_CSV = "prompt,response,label\nWhat is blue?,a colour,0\n\"a, b\",'c',1\n"
_BANK = (
    '["What is blue?", "What is green?"]', '{"paint": {"brushes": ["What is a brush?"]}}', _LINES, _CSV,
    json.dumps([{"messages": _TALK, "prompt_harm_label": "unharmful"}]), "goal;category\na;b\n",
)  # fmt: skip
_SOURCE = (
    _LINES, _CSV, json.dumps(_ROWS),
    json.dumps({"parameters": {"model": "m", "method": "x"}, "jailbreaks": [
        {"goal": "g", "prompt": "p", "response": "r", "jailbroken": True}]}),
    json.dumps({"version": 2, "eval": {"model": "m"}, "samples": [
        {"id": 1, "input": "a", "output": {"choices": [{"message": _TALK[1]}]}, "scores": {"s": {"value": "C"}}}]}),
    json.dumps({"results": {"results": [{"response": {"output": "a"}, "vars": {"prompt": "b"}, "success": True}]}}),
    json.dumps({"entry_type": "attempt", "prompt": "a", "outputs": ["b"], "detector_results": {"d": [1.0]}}) + "\n",
)  # fmt: skip
_EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
_LOOP = tuple(path.read_text(encoding="utf-8") for path in sorted(_EXAMPLES.glob("loop-*.toml")))
_PUBLIC = json.dumps([{"id": 1, "topic": "paint", "subtopic": "brushes", "question": "What is a brush?",
                       "blue_conversations": {"0": [{"role": "user", "content": "a"}, {"role": "assistant",
                       "content": "b"}]}, "red_conversations": {}}])  # fmt: skip
_TOPICS = ('{"paint": ["brushes"], "ferries": ["colours"]}', '["paint", "ferries"]')

_TOKENS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b"9" * 50, b"[", b"{", b"]", b"}", b'"', b",", b"\r", b"\n",
    "\u2028".encode(), b"\\ud800", b"null", b"true", b'""', b"\x1f\x8b", b"'", b";", b"\t", b"=", b"[[", b'"""',
)  # fmt: skip


class Reader:
    """A reader, by what it is called with, and what it reads."""

    def __init__(self, ending: str, seeds: tuple[str, ...], read: Callable[[Path], object]) -> None:
        self.ending, self.seeds, self.read = ending, [seed.encode() for seed in seeds], read

    def try_it(self, data: bytes, place: Path) -> None:
        """Read these bytes. Raises whatever the reader raises but its own one line."""
        path = place / f"file{self.ending}"
        path.write_bytes(data)
        try:
            self.read(path)
        except RedInstructError as error:
            if "\n" in str(error):
                raise AssertionError("more than one line") from error


def readers() -> dict[str, Reader]:
    """All of them."""
    from redinstruct.harmfulqa.public import read_public
    from redinstruct.harmfulqa.topics import read_topics
    from redinstruct.interop.sources import read_source
    from redinstruct.judges.rubric import read_rubric_file
    from redinstruct.prompts import load_template
    from redinstruct.questions import read_bank
    from redinstruct.rounds.config import read_config
    from redinstruct.types import ATTACK_SUCCESS

    def source(path: Path) -> object:
        return read_source(path, ATTACK_SUCCESS)

    found = {f"bank{ending}": Reader(ending, _BANK, read_bank) for ending in (".json", ".jsonl", ".csv")}
    found |= {f"import{ending}": Reader(ending, _SOURCE, source) for ending in (".json", ".jsonl", ".csv")}
    found["loop"] = Reader(".toml", _LOOP, read_config)
    found["harmfulqa"] = Reader(".json", (_PUBLIC,), read_public)
    found["topics"] = Reader(".json", _TOPICS, read_topics)
    found["template"] = Reader(
        ".txt", ("<question> please", "a <question>\r\nb"), lambda path: load_template(str(path))
    )
    found["rubric"] = Reader(".txt", ("<question>\n<answer>\n<format>",), read_rubric_file)
    return found


def mutated(seeds: list[bytes], count: int, chance: random.Random) -> Iterator[bytes]:
    """Seeds broken at random: cut, flipped, doubled, spliced, with a token too many."""
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(5):
                case 0:
                    data[at:at] = chance.choice(_TOKENS)
                case 1:
                    del data[at : at + chance.randrange(1, 9)]
                case 2 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 3:
                    data[at:at] = data[at : at + chance.randrange(1, 40)]
                case _:
                    other = chance.choice(seeds)
                    data[at : at + 20] = other[chance.randrange(len(other)) :][:20]
        yield bytes(data)


def main(name: str, runs: int, place: Path) -> None:
    """Fuzz one reader under atheris, from its seeds."""
    atheris: Any = importlib.import_module("atheris")  # nobody needs it but for this
    with atheris.instrument_imports(include=["redinstruct"]):
        reader = readers()[name]
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(seed)
    os.chdir(place)
    atheris.Setup(
        [sys.argv[0], f"-runs={runs}", "-seed=1", "-max_len=4096", "-rss_limit_mb=2048", str(corpus)],
        lambda data: reader.try_it(data, place),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
