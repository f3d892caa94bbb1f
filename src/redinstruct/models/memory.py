"""When memory ran out, whatever the device calls it. No torch is imported for it."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a class of its own on a GPU, words on a CPU."""
    return (
        isinstance(error, MemoryError)
        or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
        or "can't allocate memory" in str(error)
    )
