"""A stress run as a table: lines of words, for a terminal and a page."""

from __future__ import annotations

from redinstruct.figures.numbers import percent, with_interval
from redinstruct.figures.stressed import StressFigures, StressRow

_NAMES = {"none": "undisturbed", "prefill": "begun by {} tokens", "samples": "one of {} tries",
          "tune": "tuned for {} steps", "quantize": "rounded to {} bits",
          "ranks": "begun by one of {} first tokens", "ablate": "direction at {} % removed"}  # fmt: skip
ABOUT = "per cent, 95 % interval; change: points beside the undisturbed model"


def name_of(row: StressRow) -> str:
    """An attack at its setting, in words."""
    said = _NAMES.get(row.attack, row.attack + " {}").format(row.setting)
    return said.removesuffix("s") if said.endswith((" 1 tokens", " 1 steps")) else said


def stress_table(found: StressFigures) -> tuple[list[dict[str, str]], list[str]]:
    """The rows, without columns in which nothing stands; and which columns hold numbers."""
    several = len({row.prompt for row in found.rows}) > 1
    rows = [
        {
            "attack": name_of(row),
            "prompt": row.prompt if several else "",
            "succeeds": with_interval(row.asr),
            "change": _change(row),
            "garbled": percent(row.garbled),
            "harmless answered": "" if row.benign is None else with_interval(row.benign),
            "in the frame": "" if row.benign_in_frame is None else with_interval(row.benign_in_frame),
            "questions": f"{row.questions:,}",
        }
        for row in found.rows
    ]
    shown = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    kept = [{name: row[name] for name in shown} for row in rows]
    return kept, [name for name in shown if name not in ("attack", "prompt")]


def stress_notes(found: StressFigures) -> list[str]:
    """What the figures rest on, where that is not plain."""
    notes = [
        f"{name_of(row)}: {row.told['own']:.0f} of the model's own answers, {row.told['given']:.0f} given,"
        f" {row.told['stock']:.0f} in stock words for want of a harmful answer (--prefill-from)"
        for row in found.rows
        if row.attack == "prefill" and row.told.get("stock")
    ]
    if not found.complete:
        notes.append("not everything is recorded yet: the same command goes on")
    return list(dict.fromkeys(notes))


def _change(row: StressRow) -> str:
    change = row.change
    if change is None:
        return ""
    return f"{100 * change.estimate:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
