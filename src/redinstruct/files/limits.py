"""How much of a file is read. Small files must not cost much: each is checked while the file is parsed.

Source: the reliability reference, A12 (under 1 s of CPU and 200 MB for a file of 8 MiB, whatever it holds).
"""

from __future__ import annotations

from redinstruct.errors import BankError

MAX_BYTES = 256 * 2**20
"""The largest file, unpacked too. The largest public bank with its conversations has a tenth of it."""

MAX_ROW = 8 * 2**20
"""The longest row, in characters: hundreds of times the longest answer of a model."""

MAX_VALUES = 250_000
"""The values of one JSON row that is longer than :data:`SMALL_ROW`, counted by the marks between them."""

SMALL_ROW = 2**18
MAX_COLUMNS = 1_000
MAX_LINES = 100_000
"""The lines of one CSV record."""

MAX_ROWS = 2_000_000
_FREE_ROWS = 20_000
_ROW_CHARACTERS = 40
_FREE_UNPACKED = 16 * 2**20
_UNPACKED_RATIO = 100


def may_be(rows: int, characters: int) -> bool:
    """Whether a file of so many characters can hold so many questions or answers."""
    return rows <= min(MAX_ROWS, _FREE_ROWS + characters // _ROW_CHARACTERS)


def check_rows(number: int, characters: int) -> None:
    """Raise ``BankError`` for more rows than a file of so many characters can hold questions or answers."""
    if not may_be(number, characters):
        raise BankError(
            f"row {number}: there are more rows than are read (at most {MAX_ROWS:,}, and {_FREE_ROWS:,} of fewer than "
            f"{_ROW_CHARACTERS} characters)"
        )


def check_unpacked(packed: int, unpacked: int, *, whole: bool = True) -> None:
    """Raise ``BankError`` where a packed file grows beyond what text does; ``whole``: and beyond the largest file."""
    most = _FREE_UNPACKED + _UNPACKED_RATIO * packed
    if unpacked > (min(MAX_BYTES, most) if whole else most):
        raise BankError(f"unpacks to more than {unpacked:,} bytes from {packed:,}: unpack it yourself if you trust it")


def check_values(text: str, start: int, where: str) -> None:
    """Raise ``BankError`` for a long row of very many values."""
    marks = sum(text.count(mark, start) for mark in ",[{")
    if marks > MAX_VALUES:
        raise BankError(f"{where}holds more than {MAX_VALUES:,} values, more than are read in one row")


def check_keys(value: object, where: str) -> None:
    """Raise ``BankError`` for an object of more keys than a table has columns."""
    if isinstance(value, dict) and len(value) > MAX_COLUMNS:
        raise BankError(f"{where} has {len(value):,} keys, more than the {MAX_COLUMNS:,} that are read")


def too_long(where: str) -> BankError:
    """What is said of a row that does not end."""
    return BankError(f"{where}is longer than the {MAX_ROW:,} characters that are read in one row")
