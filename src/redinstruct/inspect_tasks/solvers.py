"""Solvers: a question asked under a prompt, as ``eval`` asks it."""

from __future__ import annotations

import msgspec
from inspect_ai.model import ChatMessageSystem
from inspect_ai.solver import Generate, Solver, TaskState, solver

from redinstruct.inspect_tasks.notes import Note, kept, note_of
from redinstruct.models.base import Request
from redinstruct.models.inspect_model import messages_of
from redinstruct.prompts import render
from redinstruct.redeval.session import under
from redinstruct.types import Conversation, Message, Role, Sampling

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@solver
def prompted() -> Solver:
    """Ask each sample under the prompt that its metadata names."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await _ask(state, generate, note_of(state.metadata))

    return solve


@solver
def standard() -> Solver:
    """Ask the question as it stands."""
    return _under("standard")


@solver
def cot() -> Solver:
    """Ask the question, step by step."""
    return _under("cot")


@solver
def cou() -> Solver:
    """Ask the question in a Chain of Utterances (arXiv 2308.09662)."""
    return _under("cou")


def _under(prompt: str) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        note = msgspec.structs.replace(note_of(state.metadata), prompt=prompt, template=None)
        state.metadata = {**state.metadata, **kept(note), "prompt": prompt}
        return await _ask(state, generate, note)

    return solve


async def _ask(state: TaskState, generate: Generate, note: Note) -> TaskState:
    before = [m for m in state.messages if isinstance(m, ChatMessageSystem) and m.source != "input"]
    earlier, question = asked(state)
    said: Conversation = (*earlier, Message("user", render(note.frame, question)))
    if note.system is not None:
        said = under(note.system, said)
    state.messages = [*before, *messages_of(Request(said, Sampling()))]
    if note.seed is None:
        return await generate(state)
    # Equal seeds would make equal answers of all epochs.
    return await generate(state, seed=note.seed + state.epoch - 1)


def asked(state: TaskState) -> tuple[Conversation, str]:
    """The turns before a sample's last user turn, and its text."""
    if isinstance(state.input, str):
        return (), state.input
    turns = [Message(_ROLES[turn.role], turn.text) for turn in state.input if turn.role in _ROLES]
    last = max(place for place, turn in enumerate(turns) if turn.role == "user")
    return tuple(turns[:last]), turns[last].content
