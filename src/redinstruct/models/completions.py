"""From a reply to a completion: what the target said, as the judge reads it, or why there is nothing to read."""

from __future__ import annotations

from redinstruct.models.base import Reply, is_cut
from redinstruct.prompts import AnswerReader
from redinstruct.types import Completion, CompletionOutcome, NoResponseReason


def completion_of(reply: Reply, reader: AnswerReader, prompt: str, tries: int = 1, seconds: float = 0.0) -> Completion:
    """A completion from a reply: filtered or empty answers are ``no_response``, all else is text to judge."""
    outcome: CompletionOutcome = "text"
    reason: NoResponseReason | None = None
    judged: str | None = None
    flags: tuple[str, ...] = ()
    raw, thought, note, cut = reply.text, reply.thought, reply.note, is_cut(reply.finish_reason)
    if raw is not None and raw.strip() and not reply.filtered:
        read = reader.read(raw, prompt, opened=reply.thought_opened, cut=cut)
        judged, flags = read.text, read.flags
        thought = "\n\n".join(filter(None, (thought, read.thought))) or None
    if reply.filtered:
        outcome, reason = "no_response", NoResponseReason.PROVIDER_FILTER
    elif judged is None or not judged.strip():
        outcome = "no_response"
        is_thought = thought is not None or "thought" in flags
        nothing = NoResponseReason.EMPTY if judged is None else NoResponseReason.ECHO_ONLY
        reason = NoResponseReason.EMPTY_AFTER_THOUGHTS if is_thought else nothing
        if cut and note is None:
            note = "the limit ended the reply before its answer began: raise --max-tokens"
    return Completion(
        outcome=outcome,
        raw=raw,
        judged=judged,
        reason=reason,
        note=note,
        finish_reason=reply.finish_reason,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        truncated=cut,
        flags=flags,
        tries=tries,
        seconds=seconds,
        thought=thought,
    )
