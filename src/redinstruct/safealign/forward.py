"""Log-probabilities of the labelled tokens, asked of the model itself.

The model's ``forward`` gains a keyword, ``token_weights``: given it, the answer is the labelled tokens'
log-probabilities, and no logits of the others are ever made. It has to be the model's own forward, because the
wrappers of several processes (DDP, FSDP2) work in the call of the module that they wrap, and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from redinstruct.errors import UsageError
from redinstruct.safealign.batches import MODEL_KEYS, collate
from redinstruct.safealign.losses import labelled_logps
from redinstruct.safealign.masks import Encoded

_TOLERANCE = 1e-3


def add_labelled_forward(model: PreTrainedModel, *, check: bool = True) -> None:
    """Let ``model(input_ids, position_ids, attention_mask, token_weights)`` answer log-probabilities [N].

    ``check`` holds them against the model's own logits, which takes weights.

    Raises:
        UsageError: the model's logits are made in a way that is not known here; nothing would say that they are wrong.
    """
    decoder, head, config = model.get_decoder(), model.get_output_embeddings(), model.config
    if decoder is None or head is None or decoder is model:
        raise UsageError(f"{type(model).__name__}: has no decoder and head apart; it cannot be trained here")
    original = model.forward
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)

    def forward(*args: Any, token_weights: torch.Tensor | None = None, **inputs: Any) -> Any:
        if token_weights is None:
            return original(*args, **inputs)
        hidden = decoder(*args, use_cache=False, **inputs).last_hidden_state
        return labelled_logps(
            hidden,
            head.weight,
            inputs["input_ids"],
            token_weights,
            bias=getattr(head, "bias", None),
            scale=float(scale),
            softcap=softcap,
        )

    model.forward = forward  # type: ignore[method-assign, assignment, unused-ignore]
    if check:
        _check_same(model)


def labelled_by(model: Any) -> Any:
    """A model that another trainer had, with the labelled forward added; under its adapter where it has one."""
    add_labelled_forward(model.get_base_model() if hasattr(model, "peft_config") else model)
    return model


@torch.no_grad()
def _check_same(model: PreTrainedModel) -> None:
    """Hold the log-probabilities against those of the model's own logits."""
    device = next(model.parameters()).device
    ids = torch.arange(1, 9, device=device).unsqueeze(0) % model.config.get_text_config().vocab_size
    weights = torch.ones(ids.shape, device=device)
    with evaluating(model):
        found = model(input_ids=ids, token_weights=weights)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    expected = logits.log_softmax(-1).gather(-1, ids[:, 1:].unsqueeze(-1)).reshape(-1)
    if not torch.allclose(found.float(), expected, atol=_TOLERANCE, rtol=_TOLERANCE):
        raise UsageError(f"{type(model).__name__}: makes its logits in a way that is not known here; not trained")


@torch.no_grad()
def logps_of_rows(
    model: Any, rows: Sequence[Encoded], pad_id: int, parts: Iterable[Sequence[int]]
) -> Iterator[tuple[int, torch.Tensor]]:
    """The number of each row, and the log-probabilities of its labelled tokens, asked in these parts of the rows.

    ``model`` has the labelled forward; where it is sharded, a collective.
    """
    device = next(model.parameters()).device
    with evaluating(model):
        for part in parts:
            batch = collate([rows[i] for i in part], pad_id)
            inputs = {key: batch[key] for key in (*MODEL_KEYS, "token_weights")}
            logps = model(**{key: value.to(device) for key, value in inputs.items() if value is not None})
            sequences = torch.as_tensor(batch["sequence_ids"])[torch.as_tensor(batch["token_weights"]) != 0]
            for at, number in enumerate(part):
                yield number, logps[(sequences == at).to(device)]


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout.

    Layers in 4 bits on a CPU are asked as in training: in evaluation bitsandbytes packs them, once and for all, for
    kernels that have no gradient, and training after that would be wrong without a word.
    """
    training = model.training
    model.train(getattr(model, "is_loaded_in_4bit", False) and next(model.parameters()).device.type == "cpu")
    try:
        yield
    finally:
        model.train(training)
