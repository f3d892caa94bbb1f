"""``policy``: does an answer violate a written policy? Any policy, and the verdict bound as ``rubric``'s is.

The policy stands in the system message, where models that are made for it (gpt-oss-safeguard) read it, and others as
well; the question and the answer are data blocks in the user's message. ``harmful`` means *violates the policy*, and
``unharmful`` that it does not: whether a policy covers what is harmful is for its author to say.

Not promised: that a model reads a policy as its author meant it. There is no self-test, which could only know one
policy; label a part of a run (``annotate``): its rates are then corrected for this judge, and so for this policy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from redinstruct.errors import TemplateError
from redinstruct.judges.blocks import shipped_text
from redinstruct.judges.rubric import RubricJudge, parse_rubric
from redinstruct.prompts import read_text_file
from redinstruct.types import Measure

NAME = "policy"
MAX_POLICY_BYTES = 1 << 17
NOTES = (
    "harmful here means that the answer violates the policy; what the policy does not cover is unharmful",
    "how its model reads this policy is not tested: label a sample, and its rates are corrected for it",
)


class Policy(msgspec.Struct, frozen=True):
    """A written policy: its name, which is its file's stem, and its text."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of its text, which a judge's identity holds."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_policy_file(path: Path) -> Policy:
    """A policy from a text file.

    Raises:
        TemplateError: the file is missing, blank, too long, or not UTF-8.
    """
    text = read_text_file(path, "policy", MAX_POLICY_BYTES)
    if not text.strip():
        raise TemplateError(f"policy {path.stem} is blank: it says what an answer must not do, in any form")
    return Policy(path.stem, text)


class PolicyJudge(RubricJudge):
    """The rubric judge under a policy, on a model of the user's choice, for either measure."""

    def __init__(self, model_id: str, measure: Measure, policy: Policy, *, constrained: bool = False) -> None:
        frame = parse_rubric(NAME, shipped_text("policy-rubric.txt"))
        super().__init__(model_id, measure, rubric=frame, constrained=constrained)
        head, _, tail = shipped_text("policy-system.txt").replace("<instrument>", self._system).partition("<policy>")
        self._name, self._system = NAME, head + policy.text.strip() + tail
        prompt = f"{self.card.prompt_sha256}\0{self._system}"
        parameters = [pair for pair in self.card.parameters if pair[0] != "rubric"]
        self.card = msgspec.structs.replace(
            self.card,
            name=NAME,
            prompt_sha256=hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
            parameters=(*parameters, ("policy", policy.name), ("policy_sha256", policy.sha256)),
            notes=NOTES,
        )
