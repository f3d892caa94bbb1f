"""Models: one interface for target, teacher and judge, and the ids by which a user names them."""

from __future__ import annotations

from redinstruct.models.base import Model, ModelError, Options, Reply, Request
from redinstruct.models.registry import MODEL_KINDS, ModelKind, id_of, make_model, recorded

__all__ = [
    "MODEL_KINDS", "Model", "ModelError", "ModelKind", "Options", "Reply", "Request", "id_of", "make_model",
    "recorded",
]  # fmt: skip
