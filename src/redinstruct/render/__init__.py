"""Runs as figures: a pure projection of the store. Nothing here can call a model, so a report spends nothing."""

from __future__ import annotations

from redinstruct.figures.rates import SCHEMA, report, result_rows
from redinstruct.render.tables import csv_text

__all__ = ["SCHEMA", "csv_text", "report", "result_rows"]
