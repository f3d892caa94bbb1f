"""The only place that writes to a terminal. Every string is redacted and made safe to show on its way out."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

import msgspec

from redinstruct.errors import RedInstructError
from redinstruct.progress import OnProgress, Progress, StagePart
from redinstruct.safetext import in_json, shown, terminal

PLAIN_PROGRESS_SECONDS = 10.0


PIPE_WIDTH = 240
"""A pipe has no width: nothing is folded there."""
NARROWEST = 20


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed before we began (`>&-`)
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _out(text: str) -> None:
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RedInstructError(f"standard output cannot be written ({error.strerror})") from None


def clean(text: str) -> str:
    """A text of any origin on one line, without secrets, and without anything that moves the cursor."""
    return shown(text)


def say(text: str = "", *, multiline: bool = False) -> None:
    """One line on standard output (or a block, where line breaks are meant)."""
    _out(shown(text, multiline=multiline) + "\n")


def say_folded(text: str, *, indent: str = "") -> None:
    """A sentence on standard output, folded at the terminal's width; one line in a pipe that says no width."""
    lines = textwrap.wrap(
        clean(text), min(width(), 100) if width() != PIPE_WIDTH else 10**6, initial_indent=indent,
        subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    _out("\n".join(lines) + "\n")


def remark(text: str) -> None:
    """What has to be said beside a table: a sentence, folded and set in by two."""
    say_folded(text, indent="  ")


def _bold(text: str) -> str:
    return f"\x1b[1m{clean(text)}\x1b[0m" if _is_terminal(sys.stdout) else clean(text)


def say_list(pairs: Sequence[tuple[str, str]]) -> None:
    """Short names in a column, in bold, and beside each what is said of it, folded there, in a log too."""
    left = max(len(clean(name)) for name, _ in pairs) + 2
    room = max(min(width(), 100) - left, NARROWEST)
    for name, text in pairs:
        together = clean(text).replace(" %", "\xa0%")  # a number and its sign stay on one line
        lines = textwrap.wrap(together, room, break_long_words=False, break_on_hyphens=False) or [""]
        first, *others = (line.replace("\xa0", " ") for line in lines)
        _out(f"{_bold(name)}{' ' * (left - len(clean(name)))}{first}\n")
        _out("".join(f"{' ' * left}{line}\n" for line in others))


def say_heading(title: str, *details: str) -> None:
    """A title in bold, and its details on a line of their own."""
    _out(f"{_bold(title)}\n")
    if details:
        say_folded("; ".join(details))


def note(text: str, *, multiline: bool = False) -> None:
    """One line on standard error. Where nobody reads it any more, the work goes on."""
    with contextlib.suppress(OSError):
        _write(sys.stderr, shown(text, multiline=multiline) + "\n")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def width() -> int:
    """The columns that standard output has; in a pipe what ``COLUMNS`` says, if anything."""
    fallback = 80 if _is_terminal(sys.stdout) else PIPE_WIDTH
    asked = os.environ.get("COLUMNS", "")
    if not _is_terminal(sys.stdout):
        return int(asked) if asked.isascii() and asked.isdigit() and int(asked) >= NARROWEST else fallback
    return max(shutil.get_terminal_size((fallback, 24)).columns, NARROWEST)


def draws() -> bool:
    """Whether standard output can carry characters beyond ASCII."""
    return "utf" in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()


def say_json(document: object) -> None:
    """A document as JSON on standard output, keys in their order.

    Text stays what it was, but nothing of it acts on a terminal: what :func:`terminal` would escape is written as
    JSON's own escape.
    """
    data = msgspec.json.format(msgspec.json.encode(in_json(document)), indent=2).decode()
    _out((data if data.isascii() and "\x7f" not in data else _NOT_PLAIN.sub(_json_escape, data)) + "\n")


_NOT_PLAIN = re.compile("[^\n -~]")


def _json_escape(match: re.Match[str]) -> str:
    character = match[0]
    if terminal(character) == character and draws():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def without(rows: Sequence[Mapping[str, str]], *columns: str) -> list[dict[str, str]]:
    """The rows without these columns."""
    return [{name: cell for name, cell in row.items() if name not in columns} for row in rows]


def say_table(
    rows: Sequence[Mapping[str, str]],
    *,
    right: Sequence[str] = (),
    indent: int = 0,
    alike: Sequence[str] = (),
    aside: Sequence[tuple[str, ...]] = (),
) -> None:
    """Rows of equal columns as a table; columns in ``right`` are right-aligned, one that holds nothing is left out.

    Those in ``alike`` are left out where every row says the same; those in ``aside`` go together, the first ones first,
    where the terminal is too narrow for them: they stand elsewhere (in the JSON, say).
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    rows = without(rows, *(name for name in alike if len({row[name] for row in rows}) == 1))
    for dropped in aside:
        rows = without(rows, *dropped) if table_width(rows) > width() else rows
    # rich folds its neighbours for a column of no width at all.
    columns = [column for column in rows[0] if column or any(row[column] for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        heading = Text(shown(column, multiline=True), style="bold")
        table.add_column(heading, justify="right" if column in right else "left", overflow="fold", vertical="top")
    for row in rows:
        table.add_row(*(Text(clean(row[column])) for column in columns))
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width())
    with console.capture() as captured:
        console.print(Padding(table, (0, 0, 0, indent), expand=False))
    _out("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def say_section(
    title: str, *details: str, rows: Sequence[Mapping[str, str]], left: Sequence[str] = (), right: Sequence[str] = ()
) -> None:
    """A heading, its table set in under it, an empty line; where ``left`` is said, all other columns hold numbers."""
    say_heading(title, *details)
    numbers = [name for name in (rows[0] if rows else ()) if name not in left] if left else right
    say_table(rows, right=numbers, indent=2)
    say()


def table_width(rows: Sequence[Mapping[str, str]]) -> int:
    """The columns that :func:`say_table` needs for these rows without folding any."""
    from rich.cells import cell_len

    widest = {
        column: max([*map(cell_len, column.split("\n")), *(cell_len(clean(row[column])) for row in rows)])
        for column in (rows[0] if rows else ())
    }
    return sum(widest.values()) + 2 * max(0, len(widest) - 1)


@contextlib.contextmanager
def progress(title: str) -> Iterator[OnProgress]:
    """A progress bar on a terminal; elsewhere a line every ten seconds. On standard error either way.

    Whoever interrupts the work is told how far it is.
    """
    bar = _LiveLine() if _is_terminal(sys.stderr) else None
    # The bar redraws five times a second; telling it more often is work that nobody sees.
    between = PLAIN_PROGRESS_SECONDS if bar is None else 0.1
    told: list[Progress] = []
    last = time.monotonic()

    def tell(state: Progress) -> None:
        nonlocal last
        told[:] = [state]
        now = time.monotonic()
        if now - last < between and (bar is None or state.done != state.total):
            return
        last = now
        name = state.stage or title
        if bar is None:
            note(f"{name}: {state.far} ({_labels(state)})")
        else:
            bar.show(f"{name} ({_labels(state)})", state)

    try:
        with contextlib.nullcontext() if bar is None else bar.live:
            yield tell
    except KeyboardInterrupt as stop:
        for state in told:
            stop.add_note(f"{state.stage}: {state.far}" if state.stage else f"{state.far} recorded ({_labels(state)})")
        raise


def _labels(state: Progress) -> str:
    return ", ".join(state.outcomes) or "nothing yet"


class _LiveLine:
    """One live line on a terminal: what is done, how far it is, how long it may take. What does not fit is cut."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        told = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
        columns = (told, BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn())
        self.live = Progress(*columns, console=console, refresh_per_second=5, transient=True, expand=True)
        self._task = self.live.add_task("", total=None)

    def begin(self) -> None:
        """Another piece of work, from its beginning."""
        self.live.reset(self._task)

    def show(self, text: str, state: Progress) -> None:
        """How far it is."""
        self.live.update(self._task, completed=state.done, total=state.total, description=clean(text))


@contextlib.contextmanager
def steps() -> Iterator[OnProgress]:
    """Progress of work in several steps: what has ended as lines that stay, and one live bar for what is done now.

    Without a terminal a line when a step begins and when it ends, and one every ten seconds meanwhile.
    """
    listener = _OnTerminal() if _is_terminal(sys.stderr) else _Steps()
    with listener.shown():
        yield listener.tell


class _Steps:
    """The lines. A step is a part of longer work, where that is told, else a stage by its name."""

    def __init__(self) -> None:
        self._now: tuple[str, float] | None = None
        self._before: list[int] = []
        self._said = False
        self._last = time.monotonic()

    def tell(self, state: Progress) -> None:
        """Take in how far it is."""
        part = state.part
        if part is not None and part.skipped:
            self._before.append(part.number)
            return
        if part is not None and part.seconds is not None:
            self._say_before()
            self._end(f"{_place(part)}: {part.name}", part.seconds)
            return
        name = state.stage if part is None else f"{_place(part)}: {part.name}"
        if self._now is None or self._now[0] != name:
            self._say_before()
            if self._now is not None:
                self._end(self._now[0], time.monotonic() - self._now[1])
            self._now = (name, time.monotonic())
            self._last = time.monotonic()
            self._said = False
        self.go_on(name, state)

    def go_on(self, name: str, state: Progress) -> None:
        """How far the step is. One that is refused before it has done anything is said by its error alone."""
        if not self._said and (state.total is not None or state.done > 0):
            self._said = True
            note(f"{name} ..." if state.part is not None else f"{name}: {state.far}")
        if time.monotonic() - self._last >= PLAIN_PROGRESS_SECONDS:
            self._last = time.monotonic()
            note(f"{name}{', ' + state.stage if state.part is not None and state.stage else ''}: {_far(state)}")

    def _end(self, name: str, seconds: float) -> None:
        self._now = None
        note(f"{name}: done in {seconds:,.0f} s")

    def _say_before(self) -> None:
        if self._before:
            note(f"{_listed(self._before)} done before")
            self._before = []

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While it listens; what has not ended by an error is not said to have."""
        try:
            yield
        except KeyboardInterrupt as stop:
            if self._now is not None:
                stop.add_note(f"in {self._now[0]}")
            raise
        self._say_before()
        if self._now is not None:
            self._end(self._now[0], time.monotonic() - self._now[1])


class _OnTerminal(_Steps):
    """The same, and under the lines one bar that moves."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = _LiveLine()

    def go_on(self, name: str, state: Progress) -> None:
        """The bar goes on, or begins anew."""
        if not self._said:
            self._said = True
            self._bar.begin()
        self._bar.show(
            "; ".join(filter(None, (name, state.stage if state.part is not None else "", state.detail))), state
        )

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While it listens."""
        with self._bar.live, super().shown():
            yield


def _place(part: StagePart) -> str:
    return f"stage {part.number:>{len(str(part.of))}} of {part.of}"


def _listed(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"stage {first}" if first == last else f"stages {first} to {last}"


def _far(state: Progress) -> str:
    return state.far + (f"; {state.detail}" if state.detail else "")
