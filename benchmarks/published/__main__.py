"""Make published rates again and write them beside the printed ones.

    python -m benchmarks.published [--clones DIR] [--cache DIR] [--only SOURCE] [--write docs/experiments/published.md]

DIR of clones has one folder a source, named as in pins.json. Exit 1 where a rate differs and no reason stands for it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from benchmarks.published.pages import page
from benchmarks.published.sources import Library, Unavailable
from benchmarks.published.tables import TABLES, Rate


def main() -> int:
    """Every source that can be had; the others are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/published"))
    parser.add_argument("--only", choices=sorted(TABLES))
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    library = Library(given.cache, given.clones)
    rates: list[Rate] = []
    missing: list[str] = []
    for name, table in TABLES.items():
        if given.only in (None, name):
            try:
                rates += table(library)
            except Unavailable as why:
                missing.append(f"{name}: {why}")
            print(f"{name}: {sum(rate.source.startswith(name) for rate in rates)} rates", file=sys.stderr)
    for reason in missing:
        print(f"left out: {reason}", file=sys.stderr)
    text = page(rates, library.sources)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    else:
        print(text)
    print(Counter("equal" if rate.equal else "different" for rate in rates), file=sys.stderr)
    return int(bool(missing) or any(not rate.equal for rate in rates))


if __name__ == "__main__":
    sys.exit(main())
