"""Checkpoints from strangers: refused in one line and in bounded time, before anything of them is loaded."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from redinstruct.checkpoints import check_configuration
from redinstruct.checkpoints.template_probe import check_chat_templates, probed
from redinstruct.errors import ModelSpecError
from tests.support.tally import finding, security

CHATML = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GOOD = {
    "plain": CHATML,
    "refuses a system turn": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML,
    "loop controls": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "the date": "{{ strftime_now('%d %b %Y') }}{{ messages | tojson }}",
    "an error of its own": "{{ nothing.at.all }}",
    "no template": "{% for %}",
}
ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
HOSTILE = {
    "huge string": ("{{ 'a' * 2000000000 }}", "memory"),
    "doubling": (
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "memory",
    ),
    "long output": ("{% for i in range(99999) %}{{ 'a' * 100 }}{% endfor %}", "makes more than"),
}


def checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2, **config}))
    return folder


@security
@pytest.mark.parametrize("template", GOOD.values(), ids=GOOD)
def test_an_ordinary_template_passes(template: str) -> None:
    assert probed(template) is None


@finding(10)
@security
@pytest.mark.parametrize(("template", "why"), HOSTILE.values(), ids=HOSTILE)
def test_a_template_without_measure_is_refused(template: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelSpecError, match=why) as caught:
        check_chat_templates(tmp_path, "hf/x")
    assert "\n" not in str(caught.value)


@finding(10)
@security
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "named"])
def test_a_template_that_does_not_end_is_refused_wherever_it_stands(place: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    if place == "chat_template.jinja":
        (folder / place).write_text(ENDLESS)
    else:
        held: Any = ENDLESS if place != "named" else [{"name": "default", "template": CHATML},
                                                      {"name": "tool_use", "template": ENDLESS}]  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": held}))
    with pytest.raises(ModelSpecError, match="does not end"):
        check_configuration(folder, "hf/x", own=("llama",))


@finding(10)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("n_layer", 10**5),
        ("hidden_size", 10**12),
        ("vocab_size", -(10**12)),
        ("num_local_experts", 10**10),
        ("max_position_embeddings", 10**18),
        ("intermediate_size", float("inf")),
    ],
)
def test_a_size_that_no_model_has_is_refused(tmp_path: Path, key: str, value: float) -> None:
    for config in ({key: value}, {"text_config": {"deep": [{key: value}]}}):
        with pytest.raises(ModelSpecError, match=key):
            check_configuration(checkpoint(tmp_path / "m", **config), "hf/x", own=("llama",))


@finding(10)
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 900 + "1" + "}" * 900, "", "\0", "9" * 5000]
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_malformed_configuration_is_one_line_or_passes(tmp_path: Path, name: str, text: str) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / name).write_text(text)
    with contextlib.suppress(ModelSpecError):  # and nothing else
        check_configuration(folder, "hf/x", own=("llama",))


def test_a_huge_text_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(HOSTILE["huge string"][0])
    with pytest.raises(ModelSpecError, match="memory"):
        check_configuration(folder, "hf/x", own=("llama",))
