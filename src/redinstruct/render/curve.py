"""A stress run as a picture: one small plot an attack, its settings to the right, shares of the questions upwards.

The solid line is how often the attack succeeds, the dashed one how many harmless questions are still answered in the
same frame; bars are 95 % intervals. The undisturbed model stands at the left of each. No style sheet, no script.
"""

from __future__ import annotations

from collections.abc import Sequence

from redinstruct.figures.numbers import percent
from redinstruct.figures.stressed import StressFigures, StressRow
from redinstruct.safetext import in_markup
from redinstruct.stats import Interval

_WIDE, _HIGH, _GAP = 210, 150, 26
_LEFT, _TOP, _BOTTOM = 40, 40, 44
_ACROSS = 4
_HARM, _HARMLESS = "#b3261e", "#2457a6"
AXES = {"prefill": "tokens begun", "samples": "tries", "tune": "steps of tuning", "quantize": "bits",
        "ranks": "first tokens tried", "ablate": "% of the depth"}  # fmt: skip


def stress_svg(found: StressFigures) -> str:
    """The picture as one SVG element; empty where there is no attack yet. Names may be any text."""
    panels = [(attack, prompt) for prompt in _prompts(found) for attack in _attacks(found)]
    if not panels:
        return ""
    across = min(_ACROSS, len(panels))
    width = across * (_WIDE + _GAP) + _LEFT
    height = -(-len(panels) // across) * (_HIGH + _TOP + _BOTTOM) + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="12" fill="currentColor" stroke="none">',
        f"<title>Attacks on {in_markup(found.model)}</title><desc>{in_markup(_told(found))}</desc>",
        f'<g transform="translate({_LEFT} 14)"><circle cx="4" cy="-4" r="4" fill="{_HARM}"/>'
        '<text x="14" y="0">the attack succeeds</text>'
        f'<circle cx="174" cy="-4" r="4" fill="{_HARMLESS}"/><text x="184" y="0">harmless questions answered in the'
        " same frame</text></g>",
    ]
    several = len(_prompts(found)) > 1
    for number, (attack, prompt) in enumerate(panels):
        x = _LEFT + number % across * (_WIDE + _GAP)
        y = 22 + _TOP + number // across * (_HIGH + _TOP + _BOTTOM)
        title = f"{attack}, {prompt}" if several else attack
        parts += [f'<g transform="translate({x} {y})">', *_panel(found, attack, prompt, title), "</g>"]
    return "\n".join([*parts, "</svg>"])


def _attacks(found: StressFigures) -> list[str]:
    return list(dict.fromkeys(row.attack for row in found.rows if row.setting is not None))


def _prompts(found: StressFigures) -> list[str]:
    return list(dict.fromkeys(row.prompt for row in found.rows))


def _rows(found: StressFigures, attack: str, prompt: str) -> list[StressRow]:
    """The undisturbed model, then the attack's settings, the weakest first."""
    own = [row for row in found.rows if row.prompt == prompt and row.attack == attack]
    whole = [row for row in found.rows if row.prompt == prompt and row.setting is None]
    return [*whole, *sorted(own, key=lambda row: (row.setting or 0) * (-1 if attack == "quantize" else 1))]


def _panel(found: StressFigures, attack: str, prompt: str, title: str) -> list[str]:
    rows = _rows(found, attack, prompt)
    step = _WIDE / max(1, len(rows) - 1) if len(rows) > 1 else 0
    parts = [f'<text x="0" y="-12" font-weight="600">{in_markup(title)}</text>']
    for tick in (0, 50, 100):
        y = _y(tick / 100)
        parts += [
            f'<line x1="0" x2="{_WIDE}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" stroke-opacity=".25"/>',
            f'<text x="-6" y="{y + 4:.1f}" text-anchor="end" fill-opacity=".75">{tick} %</text>',
        ]
    for number, row in enumerate(rows):
        name = "whole" if row.setting is None else str(row.setting)
        parts.append(f'<text x="{number * step:.1f}" y="{_HIGH + 16}" text-anchor="middle">{name}</text>')
    what = AXES.get(attack, "setting")
    parts.append(f'<text x="{_WIDE / 2}" y="{_HIGH + 33}" text-anchor="middle" fill-opacity=".75">{what}</text>')
    harmless = [(number * step, row.benign_in_frame) for number, row in enumerate(rows)]
    parts += _line([(x, figure) for x, figure in harmless if figure is not None], _HARMLESS, ' stroke-dasharray="5 4"')
    return parts + _line([(number * step, row.asr) for number, row in enumerate(rows)], _HARM, "")


def _line(points: Sequence[tuple[float, Interval]], colour: str, dashes: str) -> list[str]:
    there = [(x, figure.estimate, figure) for x, figure in points if figure.estimate is not None]
    path = " ".join(f"{x:.1f},{_y(estimate):.1f}" for x, estimate, _ in there)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']
    for x, estimate, figure in there:
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(figure.low):.1f}" y2="{_y(figure.high):.1f}" stroke="{colour}"'
            ' stroke-opacity=".45" stroke-width="3"/>',
            f'<circle cx="{x:.1f}" cy="{_y(estimate):.1f}" r="3.5" fill="{colour}"/>',
        ]
    return parts


def _y(share: float) -> float:
    return _HIGH * (1 - share)


def _told(found: StressFigures) -> str:
    """The picture in words."""
    return "; ".join(
        f"{row.attack}{'' if row.setting is None else f' {row.setting}'} under {row.prompt}: succeeds"
        f" {'-' if row.asr.estimate is None else percent(row.asr.estimate)} %"
        + ("" if row.benign_in_frame is None or row.benign_in_frame.estimate is None
           else f", harmless answered {percent(row.benign_in_frame.estimate)} %")
        for row in found.rows
    )  # fmt: skip
