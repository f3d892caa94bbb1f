r"""Hostile text made safe to show, to name files by and to store; and secrets that do not show.

A model's answer, a bank's row and a server's error message are all written by strangers. Everything that leaves the
tool passes through here, whatever its origin: a rule with exceptions is a rule that somebody forgets.

Promised: every function is pure, total over ``str`` (lone surrogates and NUL included) and linear in its input.
Not promised:

- ``terminal`` and ``csv_cell`` are for reading; they lose the difference between a character and the escape written
  for it. The lossless format is JSON Lines. ``storable`` alone has an inverse.
- Markup of a renderer is text in ``terminal``: ``[red]`` for rich must be switched off there. What leaves by a medium
  passes that medium's own escaper (:mod:`.media`), which begins with ``shown``.
- ``redact`` knows the forms listed at :class:`Secret`. It is the last net, not a licence to pass keys around.
"""

from __future__ import annotations

from redinstruct.safetext.media import in_csv, in_json, in_markdown, in_markup, shown
from redinstruct.safetext.plain import csv_cell, file_name, restore, short_hash, storable, terminal
from redinstruct.safetext.secrets import MASK, Secret, forget_secrets, has_key, looks_like_key, redact

__all__ = [
    "MASK", "Secret", "csv_cell", "file_name", "forget_secrets", "has_key", "in_csv", "in_json", "in_markdown",
    "in_markup", "looks_like_key", "redact", "restore", "short_hash", "shown", "storable", "terminal",
]  # fmt: skip
