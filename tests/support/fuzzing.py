"""Every reader of files fed with broken ones: it reads, or raises this program's own one line, and nothing else.

``python -m tests.support.fuzzing READER RUNS FOLDER`` is guided by coverage where atheris is installed (``make fuzz``);
:func:`mutated` breaks the same seeds at random anywhere. The readers stand in :mod:`tests.support.fuzz_readers`.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TOKENS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b"9" * 50, b"[", b"{", b"]", b"}", b'"', b",", b"\r", b"\n",
    "\u2028".encode(), b"\\ud800", b"null", b"true", b'""', b"\x1f\x8b", b"'", b";", b"\t", b"=", b"[[", b'"""',
)  # fmt: skip


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
    """Fuzz one reader under atheris, from its seeds; what it says of its own goes to standard error."""
    atheris: Any = importlib.import_module("atheris")  # nobody needs it but for this
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["redinstruct"]):
        reader = importlib.import_module("tests.support.fuzz_readers").reader_named(name)
        for number, seed in enumerate(reader.seeds):
            (corpus / str(number)).write_bytes(seed)
            reader.try_it(seed, place)  # what is imported late is watched too
    words = place / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in _TOKENS))
    atheris.Setup(
        [sys.argv[0], f"-runs={runs}", "-seed=1", "-max_len=4096", "-rss_limit_mb=2048", "-timeout=20",
         f"-dict={words}", f"-artifact_prefix={place}/", str(corpus)],
        lambda data: reader.try_it(data, place),
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
