"""The front as a picture: how safe each model is, and how useful, in one SVG of its own (no script, no network)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redinstruct.safetext import in_markup, shown

PlotPoint = tuple[str, float, float, tuple[float, float]]
"""Name, attack success, utility (both shares), the interval of the attack success."""
_WIDTH, _HEIGHT = 720, 420
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 46, 50, 62
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 } .small { font-size: 12px; fill: #555 } .title { font-weight: 600 }
.grid { stroke: #ddd } .axis { stroke: #888 } .ci { stroke: #2457a6; stroke-opacity: .45; stroke-width: 3 }
.dot { fill: #2457a6 } .base { fill: #b3261e } .leader { stroke: #999; stroke-width: .8 } rect { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #eee } .small { fill: #bbb } rect { fill: #16181c } .grid { stroke: #333 } .ci { stroke: #8ab4f8 }
  .dot { fill: #8ab4f8 } .base { fill: #f2b8b5 }
}
"""


class Axes(NamedTuple):
    """What a front is of: its title, and what stands to the right and upwards."""

    title: str
    rate: str
    useful: str


IN_FRAME = Axes("Safer, and still useful", "attack success in the CoU frame", "harmless questions answered there")


def front_svg(points: Sequence[PlotPoint], items: int, axes: Axes = IN_FRAME) -> str:
    """Attack success in the CoU frame to the right, harmless questions answered there upwards; better is up and left.

    ``items``: questions behind each share. Names may be any text.
    """
    title = axes.title
    told = "; ".join(f"{name}: attack success {x:.1%}, answered {y:.1%}" for name, x, y, _ in points)
    parts = [f'<text class="title" x="{_LEFT}" y="24">{title}</text>']
    for tick in range(0, 101, 25):
        x, y = _x(tick / 100), _y(tick / 100)
        parts += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>',
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{tick} %</text>',
            f'<text class="small" text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{tick} %</text>',
        ]
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts += [
        f'<text text-anchor="middle" x="{middle:.0f}" y="{_HEIGHT - 22}">{axes.rate} '
        f"(95 % interval, {items} questions)</text>",
        f'<text text-anchor="middle" transform="translate(18 {_HEIGHT / 2 - 8:.0f}) rotate(-90)">{axes.useful}</text>',
    ]
    for (name, rate, useful, (low, high)), (label_x, label_y) in zip(points, _labels(points), strict=True):
        x, y = _x(rate), _y(useful)
        kind = "base" if name == "base" else "dot"
        end = label_y - 12 if label_y > y else label_y + 4
        parts += [
            f'<line class="ci" x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<line class="leader" x1="{x:.1f}" x2="{label_x:.1f}" y1="{y:.1f}" y2="{end:.1f}"/>',
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
            f'<text text-anchor="middle" x="{label_x:.1f}" y="{label_y:.1f}">{in_markup(name)}</text>',
        ]
    return _drawn(_WIDTH, _HEIGHT, title, told, parts)


def _drawn(width: int, height: int, title: str, told: str, parts: Sequence[str]) -> str:
    """A picture of its own, with what it shows in words."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d">',
        f'<title id="t">{in_markup(title)}</title><desc id="d">{in_markup(told)}</desc><style>{_STYLE}</style>',
        f'<rect width="{width}" height="{height}"/>',
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _x(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _labels(points: Sequence[PlotPoint]) -> list[tuple[float, float]]:
    """Where each name stands: under its point, or above it near the floor, as near as no other name is in the way."""
    taken: list[tuple[float, float, float]] = []
    places = [(0.0, 0.0)] * len(points)
    for at in sorted(range(len(points)), key=lambda at: (points[at][1], points[at][0])):
        name, rate, useful, _ = points[at]
        half = 3.8 * len(shown(name)) + 4
        # Never over the figures of the axis, unless the name is as long as the picture.
        x = min(max(_x(rate), _LEFT + half), max(_WIDTH - half, half))
        down = useful > 0.3
        y = _y(useful) + (24 if down else -14)
        while any(abs(y - other) < 16 and abs(x - middle) < half + width for middle, other, width in taken):
            y += 17 if down else -17
        taken.append((x, y, half))
        places[at] = (x, y)
    return places


# ---- a panel per way of asking ----


class PlotLine(NamedTuple):
    """One model in the picture: per way of asking its attack success with both ends, and what it still answers."""

    name: str
    rates: Sequence[tuple[float, float, float]]
    useful: float
    best: bool = False


_NAMES, _PANEL, _GAP, _USEFUL, _ROW, _HEAD = 108, 190, 52, 176, 30, 92


def frames_svg(lines: Sequence[PlotLine], frames: Sequence[str], items: int) -> str:
    """How often each model gave in, a panel for each way of asking; to the right, what it still answers.

    ``items``: questions behind each share. Names may be any text.
    """
    best = next((line.name for line in lines if line.best), None)
    title = "How often the model gave in, before and after" + (
        "" if best is None else f"; safest that still answers: {shown(best)}"
    )
    told = "; ".join(
        f"{shown(line.name)}: "
        + ", ".join(f"{frame} {rate:.0%}" for frame, (rate, _, _) in zip(frames, line.rates, strict=True))
        + f", harmless answered {line.useful:.0%}"
        for line in lines
    )
    width = _NAMES + len(frames) * (_PANEL + _GAP) + _USEFUL
    bottom = _HEAD + _ROW * len(lines)
    parts = [f'<text class="title" x="16" y="28">{in_markup(title)}</text>']
    for number, frame in enumerate(frames):
        parts += _panel(frame, _NAMES + number * (_PANEL + _GAP), bottom)
    right = _NAMES + len(frames) * (_PANEL + _GAP)
    parts += [
        f'<text class="small" x="{right + 8}" y="58">harmless questions</text>',
        f'<text class="small" x="{right + 8}" y="74">answered in the dialogue</text>',
    ]
    for number, line in enumerate(lines):
        parts += _line_of(line, _HEAD + _ROW * number + _ROW // 2, right)
    parts.append(
        f'<text class="small" x="16" y="{bottom + 44}">Per cent of {items} forbidden questions that were answered; '
        "lower is safer. The line is the 95 % interval.</text>"
    )
    return _drawn(width, bottom + 52, title, told, parts)


def _panel(frame: str, left: int, bottom: int) -> list[str]:
    parts = [f'<text class="title" x="{left}" y="66">{in_markup(frame)}</text>']
    for tick in (0, 50, 100):
        x = left + _PANEL * tick / 100
        parts += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD - 12}" y2="{bottom}"/>',
            f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{bottom + 18}">{tick} %</text>',
        ]
    return parts


def _line_of(line: PlotLine, y: int, right: int) -> list[str]:
    kind = "base" if line.name == "base" else "dot"
    weight = ' class="title"' if line.best else ""
    name = line.name if len(line.name) <= 14 else f"{line.name[:13]}\u2026"
    parts = [f'<text{weight} text-anchor="end" x="{_NAMES - 16}" y="{y + 5}">{in_markup(name)}</text>']
    for number, (rate, low, high) in enumerate(line.rates):
        left = _NAMES + number * (_PANEL + _GAP)
        x, start, end = (left + _PANEL * share for share in (rate, low, high))
        beside = (end + 8, "start") if rate < 0.7 else (start - 8, "end")
        parts += [
            f'<line class="ci" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="5"/>',
            f'<text class="small" text-anchor="{beside[1]}" x="{beside[0]:.1f}" y="{y + 4}">{100 * rate:.0f}</text>',
        ]
    parts.append(f'<text{weight} x="{right + 8}" y="{y + 5}">{100 * line.useful:.0f} %</text>')
    return parts
