"""Guards: what runs away is noticed, the red term goes first, and what did not run away is left alone."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.alignment import GuardRule
from redinstruct.safealign.guards import Guard, GuardState

pytestmark = pytest.mark.local

LOSSES = st.lists(st.floats(0, 50, allow_nan=False), max_size=60)


def seen(guard: Guard, losses: list[float]) -> list[str]:
    return [guard.see(step, loss) for step, loss in enumerate(losses, 1)]


@given(LOSSES)
def test_a_loss_that_stays_below_its_limit_never_trips(losses: list[float]) -> None:
    guard = Guard(GuardRule(start_steps=1, rise=0.5, floor=50.0))
    assert set(seen(guard, losses)) <= {"fine"}


@given(LOSSES, st.integers(0, 60))
def test_a_guard_that_was_stored_and_read_again_goes_on_as_if_it_had_not_been(losses: list[float], cut: int) -> None:
    rule = GuardRule(start_steps=3, rise=0.2, floor=0.1)
    whole = Guard(rule)
    first = Guard(rule)
    expected = seen(whole, losses)
    found = [first.see(step, loss) for step, loss in enumerate(losses[:cut], 1)]
    stored = msgspec.json.decode(msgspec.json.encode(first.state), type=GuardState)
    second = Guard(rule, stored)
    found += [second.see(step, loss) for step, loss in enumerate(losses[cut:], cut + 1)]
    assert found == expected
    assert second.state == whole.state


def test_the_red_term_is_dropped_first_and_the_run_stops_when_that_does_not_help() -> None:
    guard = Guard(GuardRule(start_steps=2, rise=0.5, floor=0.0, smoothing=0.0))
    assert seen(guard, [1.0, 1.0, 1.4, 1.6]) == ["fine", "fine", "fine", "zero"]
    assert guard.red_is_off
    assert guard.limit == pytest.approx(1.5)
    later = [guard.see(step, 9.0) for step in range(5, 14)]
    assert later == ["fine"] * 7 + ["stop", "fine"]
    assert guard.state.tripped_at == 4
    assert guard.state.stopped_at == 12


def test_a_run_that_recovers_without_the_red_term_goes_on() -> None:
    guard = Guard(GuardRule(start_steps=1, rise=0.5, floor=0.0, smoothing=0.0))
    assert seen(guard, [1.0, 2.0, 1.2]) == ["fine", "zero", "fine"]
    assert [guard.see(step, 1.0) for step in range(4, 60)] == ["fine"] * 56
    assert guard.state.stopped_at is None


def test_stop_is_stop_at_once() -> None:
    guard = Guard(GuardRule(start_steps=1, rise=0.5, floor=0.0, smoothing=0.0, action="stop"))
    assert seen(guard, [1.0, 2.0]) == ["fine", "stop"]
    assert not guard.red_is_off


def test_the_floor_keeps_a_tiny_loss_from_tripping_over_noise() -> None:
    guard = Guard(GuardRule(start_steps=1, rise=0.5, floor=0.2, smoothing=0.0))
    assert seen(guard, [0.01, 0.15, 0.205]) == ["fine"] * 3
    assert guard.see(4, 0.22) == "zero"


def test_nothing_is_watched_where_nothing_is_asked_for_and_steps_without_the_rows_do_not_count() -> None:
    assert set(seen(Guard(GuardRule(rise=None)), [1.0, math.inf])) == {"fine"}
    guard = Guard(GuardRule(start_steps=1))
    assert guard.see(1, None) == "fine"
    assert guard.state.seen == 0
