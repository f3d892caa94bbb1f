"""Runs as figures: a pure projection of the store. Nothing here can call a model, so a report spends nothing."""

from __future__ import annotations

from redinstruct.figures.rates import read_report, report, result_rows
from redinstruct.figures.report import SCHEMA
from redinstruct.render.tables import csv_text

__all__ = ["SCHEMA", "csv_text", "read_report", "report", "result_rows"]
