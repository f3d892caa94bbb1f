"""Stage 2, HARMFULQA: questions and blue and red conversations, collected from any teacher.

``prepare_collection`` reads and checks and writes nothing; ``collect`` asks what is owed; ``read_collection`` reads
what was collected and asks nobody. Source: Bhardwaj & Poria 2023 (arXiv 2308.09662), section on HARMFULQA; the pipeline
as recovered in the project's specification, its prompts in the project's own words.
"""

from __future__ import annotations

from redinstruct.harmfulqa.collect import Collecting, Collection, Coverage, collect, read_collection
from redinstruct.harmfulqa.plan import CollectConfig, CollectPlan, prepare_collection
from redinstruct.harmfulqa.settings import CollectSettings

__all__ = [
    "CollectConfig", "CollectPlan", "CollectSettings", "Collecting", "Collection", "Coverage", "collect",
    "prepare_collection", "read_collection",
]  # fmt: skip
