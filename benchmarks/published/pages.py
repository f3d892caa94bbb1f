"""The table as a page: theirs, ours, the difference, and what our interval adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from benchmarks.published.sources import Source
from benchmarks.published.tables import Rate

_HEAD = """# Published tables, made again

Somebody else's answers and labels, imported as runs; the figure that they printed, read from their own file; the same
figure from our report, at the digits that were printed. Nothing of it ships: files come by reference, each with its
sha256 (`benchmarks/published/pins.json`).

    make published                                    # fetches into build/published
    make published ARGS="--clones FOLDER"             # from clones, without a network

What the interval adds: most of these rates are of 100 questions, so that two of them that look apart often are not.
"""


def page(rates: Sequence[Rate], sources: Mapping[str, Source]) -> str:
    """Markdown; a summary, then one table a source."""
    return "\n".join([_HEAD, *_summary(rates), *_tables(rates, sources)]) + "\n"


def _summary(rates: Sequence[Rate]) -> Iterator[str]:
    different = [rate for rate in rates if not rate.equal]
    names = len({rate.source.removesuffix(" pairs") for rate in rates})
    equal = len(rates) - len(different)
    yield f"**{len(rates)} figures of {names} data sets: {equal} equal, {len(different)} different.**"
    yield ""
    for rate in different:
        yield f"- {rate.source}, {rate.what}: printed {rate.printed}, ours {rate.written}"


def _tables(rates: Sequence[Rate], sources: Mapping[str, Source]) -> Iterator[str]:
    for name, group in groupby(rates, key=lambda rate: rate.source):
        source = sources[name.split()[0]]
        yield f"\n## {source.title}{name.removeprefix(name.split()[0])}\n"
        yield f"{source.page}, {source.licence}.\n"
        yield "| what | n | printed | ours | difference | our 95 % interval | note |\n|---|---|---|---|---|---|---|"
        for rate in group:
            interval = "" if rate.low is None or rate.high is None else f"{rate.low:.3f} to {rate.high:.3f}"
            difference = "0" if rate.equal else "**not 0**"
            cells = (rate.what, str(rate.n), rate.printed, rate.written, difference, interval, rate.note)
            yield f"| {' | '.join(cells)} |"
