"""Answers that another tool or a person collected, as an ordinary run.

:func:`import_file` is the door. Read are tables (CSV, JSONL, JSON: ``prompt`` and ``response``, and perhaps ``judge``,
``human``, ``cluster``), the Red-Instruct authors' ``results/*.json``, JailbreakBench artifacts and garak's
``report.jsonl``.
"""

from __future__ import annotations

from redinstruct.interop.rows import Source
from redinstruct.interop.runs import Imported, import_file
from redinstruct.interop.settings import ImportSettings
from redinstruct.interop.sources import read_source

__all__ = ["ImportSettings", "Imported", "Source", "import_file", "read_source"]
