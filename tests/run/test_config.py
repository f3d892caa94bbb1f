"""What makes two invocations the same run."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from redinstruct.errors import ConfigError
from redinstruct.run.config import Pinned, RunConfig, check_same_run
from redinstruct.run.same import differences
from redinstruct.types import Sampling
from tests.support.stores import configs

STORED = RunConfig(
    model="openai/m",
    banks=(Pinned("a", "1" * 64), Pinned("b", "2" * 64)),
    prompts=(Pinned("standard", "3" * 64),),
    measure="attack_success",
    judge="refusal@0123",
    sampling=Sampling(temperature=0.5, stop=("x",)),
    chat_template="native",
    limit=10,
    epochs=2,
)


def changed(**changes: object) -> RunConfig:
    return msgspec.structs.replace(STORED, **changes)


def sampled(**changes: object) -> RunConfig:
    return changed(sampling=msgspec.structs.replace(STORED.sampling, **changes))


DIFFERENCES = [
    (changed(model="openai/n"), "--model was openai/m, is openai/n"),
    (changed(banks=STORED.banks[:1]), f"--bank was a@{'1' * 12}+b@{'2' * 12}, is a@{'1' * 12}"),
    (changed(banks=STORED.banks[::-1]), f"--bank was a@{'1' * 12}+b@{'2' * 12}, is b@{'2' * 12}+a@{'1' * 12}"),
    (changed(prompts=(Pinned("standard", "4" * 64),)), f"was standard@{'3' * 12}, is standard@{'4' * 12}"),
    (changed(measure="over_refusal"), "--measure was attack_success, is over_refusal"),
    (changed(judge="paper:openai/j@4567"), "--judge/--judge-model was refusal@0123, is paper:openai/j@4567"),
    (changed(chat_template="none"), "--chat-template was native, is none"),
    (changed(protocol="paper-2023"), "--protocol was default, is paper-2023"),
    (changed(dedupe=True), "--dedupe was False, is True"),
    (changed(options=(("top_k", "5"),)), "--model-option was none, is top_k+5"),
    (changed(system="Be brief."), "--system was unset, is 9 characters, sha256 "),
    (sampled(max_tokens=1), "--max-tokens was 500, is 1"),
    (sampled(temperature=None), "--temperature was 0.5, is unset"),
    (sampled(top_p=0.9), "--top-p was unset, is 0.9"),
    (sampled(seed=0), "--seed was unset, is 0"),
    (sampled(stop=()), "--stop was x, is none"),
    (changed(limit=9), "--limit was 10 and cannot shrink to 9"),
    (changed(epochs=1), "--epochs was 2 and cannot shrink to 1"),
]


@pytest.mark.parametrize("asked", [STORED, changed(limit=11), changed(limit=None), changed(epochs=3)])
def test_the_same_flags_resume_a_run_and_larger_ones_extend_it(asked: RunConfig) -> None:
    check_same_run(STORED, asked, "the/run")
    assert asked.digest == STORED.digest


def test_a_run_without_limit_takes_none() -> None:
    with pytest.raises(ConfigError, match="--limit was all and cannot shrink to 5"):
        check_same_run(changed(limit=None), changed(limit=5), "the/run")


@pytest.mark.parametrize(("asked", "says"), DIFFERENCES, ids=[says.split()[0] for _, says in DIFFERENCES])
def test_each_difference_is_named(asked: RunConfig, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_same_run(STORED, asked, "the/run")
    message = str(caught.value)
    assert says in message
    assert message.startswith("the/run holds a run with another configuration: ")
    assert "\n" not in message
    assert message.count(" was ") == 1


def test_all_differences_are_named_at_once() -> None:
    asked = msgspec.structs.replace(
        STORED, model="openai/n", dedupe=True, sampling=Sampling(max_tokens=1), limit=1, epochs=1
    )
    with pytest.raises(ConfigError) as caught:
        check_same_run(STORED, asked, "the/run")
    flags = ("--model", "--dedupe", "--max-tokens", "--temperature", "--stop", "--limit", "--epochs")
    assert [f"{flag} was" in str(caught.value) for flag in flags] == [True] * len(flags)


def test_another_judge_is_pointed_to_the_verb_that_judges_again() -> None:
    for asked, hint in ((changed(judge="x"), True), (changed(model="x"), False)):
        with pytest.raises(ConfigError) as caught:
            check_same_run(STORED, asked, "the/run")
        assert ("redinstruct judge" in str(caught.value)) is hint


def test_every_field_is_either_compared_or_may_grow() -> None:
    """A field that is added to the configuration must be added to the comparison."""
    free = {"limit_rule", "selected"}  # follow from the bank and the flags; runs of the first edition lack them
    for field in RunConfig.__struct_fields__:
        grown = {"limit": 1, "epochs": 1, "sampling": Sampling(max_tokens=77)}.get(field, "another")
        found = list(differences(STORED, changed(**{field: grown})))
        assert (not found) is (field in free), field
    for field in Sampling.__struct_fields__:
        with pytest.raises(ConfigError):
            check_same_run(STORED, sampled(**{field: ("other",) if field == "stop" else 77}), "run")


@settings(max_examples=60, deadline=None)
@given(one=configs, two=configs)
def test_the_digest_differs_where_the_runs_do(one: RunConfig, two: RunConfig) -> None:
    grown = msgspec.structs.replace(one, limit=None, epochs=one.epochs + 1)
    assert grown.digest == one.digest
    check_same_run(one, grown, "run")
    alike = msgspec.structs.replace(two, limit=one.limit, epochs=one.epochs) == one
    assert (one.digest == two.digest) is alike
