"""What this process has of the machine's memory, and what it gives back."""

from __future__ import annotations

import platform

import pytest

from redinstruct.checkpoints.host import give_back, resident


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_was_freed_goes_back_to_the_system() -> None:
    """As after a model's answers: blocks below glibc's limit, with something small above them that is still in use."""
    blocks = bytearray(24_000_000)  # freed, it raises the size up to which glibc keeps blocks
    del blocks
    held, small = [], []
    for _ in range(20):
        held.append(bytearray(8_000_000))
        small.append(bytes(2_000))
    most = resident()
    del held
    give_back()
    assert most - resident() > 100e6
    assert small
