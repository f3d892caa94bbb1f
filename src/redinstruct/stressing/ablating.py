"""The refusal direction removed: what tells refused prompts from answered ones is taken out of every layer's output.

The direction is the difference of the mean hidden states at the last token of the prompt, forbidden questions less
harmless ones, at one depth. Here it is projected out of what the embedding and every layer hand on, by hooks: the
weights stay, and nothing of it is written. It is told from the very questions that are asked, which is more than most
attackers have.

Source: Arditi et al. 2024, "Refusal in language models is mediated by a single direction" (arXiv 2406.11717).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from redinstruct.models import Request
from redinstruct.models.transformers import LocalModel


def ablate(
    model: LocalModel, forbidden: Sequence[Request], harmless: Sequence[Request], depth: int
) -> dict[str, float]:
    """Take the direction found at ``depth`` per cent of the layers out of the model, for as long as it lives.

    Returns how many questions it was told from, at which layer, and how far apart the two means lie there, as a share
    of the harmless ones' norm.
    """
    at = max(1, round(len(_layers(model.checkpoint[0])) * depth / 100))
    refused, answered = (_mean_state(model, side, at) for side in (forbidden, harmless))
    apart = refused - answered
    take_out(model, apart)
    told = {"questions": len(forbidden) + len(harmless), "layer": at}
    return told | {"apart": round(float(apart.norm() / answered.norm()), 4)}


def take_out(model: LocalModel, direction: torch.Tensor) -> None:
    """Project a direction [width] out of what the embedding and every layer hand on."""
    module: Any = model.checkpoint[0]
    unit = direction / direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
    for place in (module.get_input_embeddings(), *_layers(module)):
        place.register_forward_hook(lambda _, __, output: _without(output, unit))


def _layers(module: Any) -> list[Any]:
    """The decoder's layers: the first list of modules that is as long as its configuration says."""
    count = module.config.get_text_config(decoder=True).num_hidden_layers
    return next(list(one) for one in module.modules() if isinstance(one, torch.nn.ModuleList) and len(one) == count)


@torch.inference_mode()
def _mean_state(model: LocalModel, requests: Sequence[Request], at: int) -> torch.Tensor:
    """The mean state [width] at the last token after ``at`` layers, in the embedding's precision."""
    module: Any = model.checkpoint[0]
    states = []
    for ids in model.prompts(requests):
        read = module(input_ids=torch.tensor([ids], device=module.device), output_hidden_states=True, use_cache=False)
        states.append(read.hidden_states[at][0, -1])
    return torch.stack(states).mean(dim=0)


def _without(output: Any, direction: torch.Tensor) -> Any:
    """A layer's output, of states [batch, length, width] or a tuple that begins with them, without the direction."""
    states = output[0] if isinstance(output, tuple) else output
    along = direction.to(states.dtype)
    kept = states - (states @ along).unsqueeze(-1) * along
    return (kept, *output[1:]) if isinstance(output, tuple) else kept
