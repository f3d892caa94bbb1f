"""The policy laboratory: a harmless subject that a model must not talk about: banks, frames, data, a judge's rules.

Inert by construction: nobody is harmed by a recipe for bread. So the whole method can be shown on a real language model
(``redinstruct demo --real``). Families of things are split into train, dev and test; no item of test stands in any row
of training. There are two subjects: recipes are tuned on one and told on the other. Pure: text alone, no torch.
"""

from redinstruct.policy.grading import Grade, grade, understand
from redinstruct.policy.subjects import SUBJECTS, Subject, SubjectQuestion, digest, subject

__all__ = ["SUBJECTS", "Grade", "Subject", "SubjectQuestion", "digest", "grade", "subject", "understand"]
