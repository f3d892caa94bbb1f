"""The version of this tool, as runs, cards and requests name it."""

from __future__ import annotations

__version__ = "0.2.0"
