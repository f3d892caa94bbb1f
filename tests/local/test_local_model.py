"""``hf/...``: local checkpoints answer in batches, with a shared prefix, as transformers itself would."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from redinstruct import world
from redinstruct.errors import ModelSpecError
from redinstruct.models import decoding, make_model
from redinstruct.models import transformers as local
from redinstruct.models.base import Model, ModelError, Reply, Request
from redinstruct.models.decoding import Decoding, Generator
from redinstruct.models.placement import Placement, Replicas, placed, placement
from redinstruct.models.prefix_cache import CascadeLayer, CausalModel, Ids, common_prefix
from redinstruct.models.transformers import LocalModel
from redinstruct.toyworld import frames
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.cli import InProcess

pytestmark = pytest.mark.local

Saver = Callable[..., Path]
GREEDY = Sampling(max_tokens=12, temperature=0.0)
QUESTIONS = [question.text for question in world.how_to_questions("forbidden", "test")[:9]] + [
    "Is bread forbidden?",
    "What is 2 plus 3?",
]
PREFIX, SUFFIX = frames.prompts()["cou"].split("<question>")


def cou(question: str, sampling: Sampling = GREEDY, *, hinted: bool = True) -> Request:
    return Request((Message("user", PREFIX + question + SUFFIX),), sampling, PREFIX if hinted else "")


def texts(replies: Sequence[Reply]) -> list[str | None]:
    return [reply.text for reply in replies]


@pytest.fixture(scope="module")
def model(tiny: Path) -> LocalModel:
    return LocalModel.load(tiny)


# ---- the interface ----


def test_it_is_a_model_named_by_its_folder_and_content(tiny: Path, model: LocalModel) -> None:
    assert isinstance(model, Model)
    name, _, digest = model.id.partition("@")
    assert name == f"hf/{tiny.name}"
    assert len(digest) == 12
    assert LocalModel.load(tiny).id == model.id


def test_another_content_is_another_id(save_tiny: Saver, model: LocalModel) -> None:
    assert LocalModel.load(save_tiny(rope_theta=50.0)).id != model.id


def test_it_answers_a_batch_in_its_order_in_a_thread_of_its_own(model: LocalModel) -> None:
    requests = [cou(question) for question in QUESTIONS]

    async def both() -> tuple[Sequence[Reply], Sequence[Reply]]:
        return await model.generate(requests), await model.generate(requests[::-1])

    forwards, backwards = asyncio.run(both())
    assert texts(forwards) == texts(backwards)[::-1]
    assert [reply.tokens_out for reply in forwards] == [12] * len(requests)
    assert {reply.finish_reason for reply in forwards} == {"length"}


def test_an_empty_batch_is_answered_with_nothing(model: LocalModel) -> None:
    assert model.answer([]) == []


def test_closing_twice_is_safe(tiny: Path) -> None:
    model = LocalModel.load(tiny)
    asyncio.run(model.aclose())
    asyncio.run(model.aclose())


def test_notes_beside_the_weights_do_not_change_the_id(save_tiny: Saver) -> None:
    folder = save_tiny()
    before = LocalModel.load(folder).id
    (folder / "toyworld.json").write_text("{}")
    (folder / "README.md").write_text("notes")
    assert LocalModel.load(folder).id == before


# ---- greedy answers are transformers' own ----


def plain_generate(folder: Path, prompt: str, sampling: Sampling) -> str:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    plain: Any = AutoModelForCausalLM.from_pretrained(folder)
    made = plain.generate(**encoded, max_new_tokens=sampling.max_tokens, do_sample=False)
    return str(tokenizer.decode(made[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True))


def test_greedy_answers_equal_those_of_generate(tiny: Path, model: LocalModel) -> None:
    replies = model.answer([cou(question) for question in QUESTIONS])
    assert texts(replies) == [plain_generate(tiny, PREFIX + question + SUFFIX, GREEDY) for question in QUESTIONS]


@pytest.mark.parametrize(
    "config",
    [{}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1, "num_hidden_layers": 3}],
    ids=["grouped", "multi-head", "multi-query"],
)
def test_a_shared_prefix_changes_no_token(save_tiny: Saver, config: dict[str, int]) -> None:
    """Token for token, or they part where the two best logits lie within 1e-4."""
    model = AutoModelForCausalLM.from_pretrained(save_tiny(**config)).eval()
    causal = CausalModel(model)
    tokenizer: Any = AutoTokenizer.from_pretrained(save_tiny())
    prompts = [tuple(tokenizer(PREFIX + question + SUFFIX).input_ids) for question in QUESTIONS]
    how = [Decoding(max_tokens=48)] * len(prompts)
    answers = {}
    for share in (True, False):
        generator = Generator(causal, [2], 0, tokenizer.decode, share_prefix=share)
        answers[share] = [generated.ids for generated in generator(prompts, how)]
    for prompt, shared, unshared in zip(prompts, answers[True], answers[False], strict=True):
        if shared != unshared:
            at = common_prefix([tuple(shared), tuple(unshared)])
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *shared[:at]]])).logits[0, -1]
            best, second = logits.topk(2).values.tolist()
            assert best - second < 1e-4


@pytest.mark.parametrize("name", ["grouped", "multi-head"])
def test_a_prefix_is_attended_to_once_a_batch_and_the_logits_stay(save_tiny: Saver, name: str) -> None:
    """Rows of unlike length, that leave the batch at unlike times; and whatever the model does after is as before."""
    heads = 2 if name == "grouped" else 4
    model = AutoModelForCausalLM.from_pretrained(save_tiny(num_key_value_heads=heads)).eval()
    usual = model.config._attn_implementation
    draw = random.Random(0)
    head = [draw.randrange(3, 300) for _ in range(60)]
    prompts = [tuple(head + [draw.randrange(3, 300) for _ in range(length)]) for length in (9, 1, 4, 17, 2)]
    how = [Decoding(max_tokens=most, top_logprobs=3) for most in (4, 12, 20, 8, 3)]
    causal = CausalModel(model)
    assert causal.sharing() is CascadeLayer
    shared, alone = (Generator(causal, [], 0, str, share_prefix=share)(prompts, how) for share in (True, False))
    assert model.config._attn_implementation == usual
    for one, other in zip(shared, alone, strict=True):
        assert one.ids == other.ids
        for ours, theirs in zip(one.choices, other.choices, strict=True):
            assert [token for token, _ in ours] == [token for token, _ in theirs]
            assert [chance for _, chance in ours] == pytest.approx([chance for _, chance in theirs], abs=1e-4)


@pytest.mark.parametrize(("at_once", "share"), [(1, True), (24, True), (40, True), (10_000, True), (24, False)])
def test_prompts_read_a_few_rows_at_a_time_get_the_same_answers(save_tiny: Saver, at_once: int, share: bool) -> None:
    """However few: rows of unlike length, that leave the batch at unlike times."""
    model = AutoModelForCausalLM.from_pretrained(save_tiny()).eval()
    draw = random.Random(1)
    head = [draw.randrange(3, 300) for _ in range(30)]
    prompts = [tuple(head + [draw.randrange(3, 300) for _ in range(length)]) for length in (9, 1, 4, 17, 2, 9, 3)]
    how = [Decoding(max_tokens=most, top_logprobs=2) for most in (4, 12, 20, 8, 3, 16, 70)]
    causal = CausalModel(model)
    calls: list[int] = []
    usual = causal.logits

    def counted(*given: Any) -> torch.Tensor:
        calls.append(len(given[0]))
        return usual(*given)

    causal.logits = counted  # type: ignore[assignment, method-assign]
    whole = Generator(causal, [], 0, str, share_prefix=share, at_once=10_000)(prompts, how)
    calls.clear()
    parts = Generator(causal, [], 0, str, share_prefix=share, at_once=at_once)(prompts, how)
    assert (len(prompts) in calls[:2]) == (at_once == 10_000)
    for one, other in zip(parts, whole, strict=True):
        assert one.ids == other.ids
        for ours, theirs in zip(one.choices, other.choices, strict=True):
            assert [chance for _, chance in ours] == pytest.approx([chance for _, chance in theirs], abs=1e-4)


def test_the_prefix_is_computed_once_for_many_batches(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel.load(tiny)
    widths: list[tuple[int, ...]] = []
    logits = CausalModel.logits

    def counted(self: CausalModel, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        widths.append(tuple(ids.shape))
        return logits(self, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(CausalModel, "logits", counted)
    for start in (0, 3, 6):
        model.answer([cou(question) for question in QUESTIONS[start : start + 3]])
    long = [shape for shape in widths if shape[1] > 60]
    assert [batch for batch, _ in long] == [1]


def test_without_a_hint_the_common_beginning_is_found(tiny: Path, model: LocalModel) -> None:
    requests = [cou(question, hinted=False) for question in QUESTIONS]
    assert texts(LocalModel.load(tiny).answer(requests)) == texts(model.answer([cou(q) for q in QUESTIONS]))


def test_a_hint_that_is_not_the_messages_beginning_is_ignored(model: LocalModel) -> None:
    odd = [Request(cou(question).messages, GREEDY, "another text") for question in QUESTIONS]
    assert texts(model.answer(odd)) == texts(model.answer([cou(question) for question in QUESTIONS]))


def test_prompts_of_very_different_length_may_stand_in_one_batch(model: LocalModel) -> None:
    mixed = [cou(QUESTIONS[0]), Request((Message("user", "Is bread forbidden?"),), GREEDY), cou(QUESTIONS[1])]
    alone = [model.answer([request])[0] for request in mixed]
    assert texts(model.answer(mixed)) == texts(alone)


def other_architecture(name: str) -> Any:
    """A random model that differs in what a prefix cache could get wrong: positions, windows, recurrent states."""
    import transformers as hf

    torch.manual_seed(0)
    small: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    llama_like: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "initializer_range": 0.3,
    }
    if name == "learnt positions":
        config = hf.GPT2Config(**small, n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3)
        return hf.GPT2LMHeadModel(config).eval()  # type: ignore[no-untyped-call, unused-ignore]
    if name == "linear biases":
        bloom = hf.BloomConfig(**small, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3)
        return hf.BloomForCausalLM(bloom).eval()  # type: ignore[no-untyped-call, unused-ignore]
    if name == "biases by place":  # they count padding, so a row is another one beside a longer row
        mpt = hf.MptConfig(**small, d_model=32, n_layers=2, n_heads=2, max_seq_len=128, initializer_range=0.3)
        return hf.MptForCausalLM(mpt).eval()  # type: ignore[no-untyped-call, unused-ignore]
    if name == "capped scores":
        capped = {**llama_like, "head_dim": 16, "layer_types": ["full_attention"] * 2, "attn_logit_softcapping": 2.0}
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**small, **capped)).eval()
    if name == "sliding window":
        return hf.MistralForCausalLM(hf.MistralConfig(**small, **llama_like, sliding_window=16)).eval()
    return hf.MambaForCausalLM(hf.MambaConfig(**small, hidden_size=32, num_hidden_layers=2)).eval()


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("learnt positions", True),
        ("linear biases", True),
        ("biases by place", False),
        ("capped scores", True),
        ("sliding window", False),
        ("recurrent state", False),
    ],
)
def test_other_architectures_answer_as_generate_does_shared_where_that_is_exact(name: str, shares: bool) -> None:
    plain = other_architecture(name)
    draw = random.Random(0)
    head = [draw.randrange(3, 300) for _ in range(40)]
    prompts = [tuple(head + [draw.randrange(3, 300) for _ in range(length)]) for length in (2, 5, 3, 8)]
    causal = CausalModel(plain)
    made = Generator(causal, [], 0, str)(prompts, [Decoding(8)] * len(prompts))
    assert (causal.sharing() is not None) is shares
    for prompt, generated in zip(prompts, made, strict=True):
        ids = torch.tensor([prompt])
        whole = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert generated.ids == whole[0, len(prompt) :].tolist()


# ---- sampling ----


def sampled(seed: int | None, question: str = QUESTIONS[0], **more: float) -> Request:
    return cou(question, Sampling(max_tokens=16, temperature=1.0, seed=seed, **more))  # type: ignore[arg-type]


def test_a_seed_gives_the_same_answer_whatever_else_is_in_the_batch(model: LocalModel) -> None:
    alone = model.answer([sampled(7)])[0].text
    crowd = [sampled(seed, question) for seed, question in enumerate(QUESTIONS)]
    assert model.answer([*crowd, sampled(7)])[-1].text == alone
    assert model.answer([sampled(8)])[0].text != alone


def test_without_a_seed_answers_vary(model: LocalModel) -> None:
    assert len(set(texts(model.answer([sampled(None) for _ in range(8)])))) > 1


def test_a_tiny_top_p_is_greedy(model: LocalModel) -> None:
    greedy = model.answer([cou(QUESTIONS[0], Sampling(max_tokens=16, temperature=0.0))])
    assert texts(model.answer([sampled(3, top_p=1e-6)])) == texts(greedy)


def test_min_p_of_the_checkpoint_is_followed(save_tiny: Saver, model: LocalModel) -> None:
    greedy = model.answer([cou(QUESTIONS[0], Sampling(max_tokens=16, temperature=0.0))])
    for value, same in ((1.0, True), (0.0, False)):
        folder = changed(save_tiny(), "generation_config.json", do_sample=True, temperature=1.0, min_p=value)
        made = LocalModel.load(folder).answer([cou(QUESTIONS[0], Sampling(max_tokens=16, seed=3))])
        assert (texts(made) == texts(greedy)) == same


def test_samples_follow_the_models_probabilities(tiny: Path, model: LocalModel) -> None:
    """First tokens of 3,000 draws against the softmax: the total variation distance is what chance leaves."""
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    prompt = tuple(tokenizer("Is bread forbidden?").input_ids)
    generator = Generator(CausalModel(plain), [], 0, tokenizer.decode)
    draws = 3000
    with torch.inference_mode():
        expected = plain(torch.tensor([prompt])).logits[0, -1].div(0.2).softmax(-1)
    counts = torch.zeros_like(expected)
    for start in range(0, draws, 500):
        how = [Decoding(1, temperature=0.2, seed=seed) for seed in range(start, start + 500)]
        for generated in generator([prompt] * 500, how):
            counts[generated.ids[0]] += 1
    distance = 0.5 * (counts / draws - expected).abs().sum().item()
    chance = 0.5 * (expected * (1 - expected) / draws).sqrt().sum().item()
    assert distance < 2 * chance + 0.01


def test_the_checkpoints_own_settings_hold_where_the_request_says_nothing(save_tiny: Saver) -> None:
    folder = save_tiny()
    settings = json.loads((folder / "generation_config.json").read_text())
    asked = [cou(QUESTIONS[0], Sampling(max_tokens=16, seed=5))]
    greedy = texts(LocalModel.load(folder).answer(asked))
    (folder / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True, "temperature": 1.5}))
    assert texts(LocalModel.load(folder).answer(asked)) != greedy
    (folder / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True, "top_k": 1}))
    assert texts(LocalModel.load(folder).answer(asked)) == greedy


def test_a_repetition_penalty_is_followed_as_generate_follows_it(save_tiny: Saver) -> None:
    folder = save_tiny()
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 1.3}))
    sampling = Sampling(max_tokens=16)
    ours = LocalModel.load(folder).answer([cou(QUESTIONS[0], sampling)])[0].text
    assert ours == plain_generate(folder, PREFIX + QUESTIONS[0] + SUFFIX, sampling)


def test_settings_that_are_not_supported_are_said_in_one_line_before_anything_is_recorded(
    save_tiny: Saver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny()
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "num_beams": 4}))
    model = LocalModel.load(folder)
    with pytest.raises(ModelSpecError, match="num_beams"):
        model.answer([cou(QUESTIONS[0], Sampling())])
    (tmp_path / "bank.json").write_text(json.dumps(QUESTIONS))
    flags = ("--model", f"hf/{folder}", "--bank", tmp_path / "bank.json", "--prompt", "standard", "--judge", "refusal")
    refused = InProcess(capsys)("eval", *flags, "--chat-template", "none", "--run", tmp_path / "run")
    assert refused.code == 2
    assert "num_beams" in refused.err
    assert not (tmp_path / "run").exists()
    assert model.answer([cou(QUESTIONS[0])])[0].text


# ---- ends ----


def test_an_answer_ends_at_the_end_token_and_says_stop(tiny: Path) -> None:
    model = LocalModel.load(tiny)
    free = model.answer([cou(question) for question in QUESTIONS])
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny)
    first = tokenizer(free[0].text, add_special_tokens=False).input_ids
    generator = Generator(CausalModel(plain), [first[3]], 0, tokenizer.decode)
    prompts = [tuple(tokenizer(PREFIX + question + SUFFIX).input_ids) for question in QUESTIONS]
    for generated in generator(prompts, [Decoding(12)] * len(prompts)):
        assert first[3] not in generated.ids
        assert generated.finish == ("length" if len(generated.ids) == 12 else "stop")


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(model: LocalModel) -> None:
    free = model.answer([cou(question) for question in QUESTIONS])
    whole = free[0].text or ""
    stop = whole.split(" ")[4]
    stopped = model.answer([cou(question, Sampling(12, 0.0, stop=(stop,))) for question in QUESTIONS])
    assert stopped[0].text == whole[: whole.index(stop)]
    assert stopped[0].finish_reason == "stop"
    for before, after in zip(free, stopped, strict=True):
        assert (before.text or "").startswith(after.text or "")
        assert stop not in (after.text or "")


def test_every_request_has_its_own_limit(model: LocalModel) -> None:
    replies = model.answer([cou(QUESTIONS[0], Sampling(limit, 0.0)) for limit in (1, 30, 5, 2)])
    assert [reply.tokens_out for reply in replies] == [1, 30, 5, 2]


def test_an_answer_never_outgrows_the_model(model: LocalModel) -> None:
    prompt = cou(QUESTIONS[0], Sampling(max_tokens=5000, temperature=0.0))
    reply = model.answer([prompt])[0]
    assert (reply.tokens_in or 0) + (reply.tokens_out or 0) == 512
    assert reply.finish_reason == "length"


def test_a_prompt_that_does_not_fit_is_a_typed_error(model: LocalModel) -> None:
    with pytest.raises(ModelError) as caught:
        model.answer([Request((Message("user", "bread " * 600),), GREEDY)])
    assert caught.value.reason is FailureReason.BAD_REQUEST
    assert not caught.value.transient


def test_a_token_that_the_tokenizer_gained_and_the_model_did_not_is_a_typed_error(tiny: Path, tmp_path: Path) -> None:
    grown = shutil.copytree(tiny, tmp_path / "grown")
    tokenizer: Any = AutoTokenizer.from_pretrained(grown)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|gained|>"], "pad_token": "<|gained|>"})
    tokenizer.save_pretrained(grown)
    model = LocalModel.load(grown)
    asked = [Request((Message("user", text),), GREEDY) for text in ("bread", "How do I make bread?", "a <|gained|> b")]
    assert [reply.text is not None for reply in model.answer(asked[:2])] == [True, True]
    for ask in (lambda: model.answer(asked[2:]), lambda: model.likelihoods([("bread", "<|gained|>")])):
        with pytest.raises(ModelError, match="bad_request") as caught:
            ask()
        assert "of its tokenizer, the model has" in (caught.value.note or "")


# ---- templates ----


def test_template_none_sends_the_bare_text(tiny: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    reply = LocalModel.load(tiny, chat_template="none").answer([Request((Message("user", "Is bread plain?"),), GREEDY)])
    assert reply[0].tokens_in == len(tokenizer("Is bread plain?").input_ids)


def test_a_message_of_the_assistant_is_continued(tiny: Path, model: LocalModel) -> None:
    messages = (Message("user", "How do I make bread?"), Message("assistant", "first take"))
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    whole = tokenizer("<s>human: How do I make bread?\nassistant: first take", add_special_tokens=False).input_ids
    assert model.answer([Request(messages, GREEDY)])[0].tokens_in == len(whole)


def test_native_needs_a_template(save_tiny: Saver) -> None:
    folder = save_tiny("bare")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelSpecError, match=r"hf/bare@\w+: its tokenizer has no chat template"):
        LocalModel.load(folder)
    assert LocalModel.load(folder, chat_template="none").answer([cou(QUESTIONS[0])])[0].text


def test_an_unknown_template_is_refused(tiny: Path) -> None:
    with pytest.raises(ModelSpecError, match="native or none"):
        LocalModel.load(tiny, chat_template="chatml")


# ---- out of memory ----


class Full:
    """Stands in for a generator on a device that holds ``fits`` rows at once."""

    def __init__(self, generator: Generator, fits: int, error: Exception) -> None:
        self.generator, self.fits, self.error = generator, fits, error
        self.prefixes = generator.prefixes
        self.sizes: list[int] = []

    def __call__(self, prompts: list[Ids], how: list[Decoding], hint: Ids) -> object:
        self.sizes.append(len(prompts))
        if len(prompts) > self.fits:
            raise self.error
        return self.generator(prompts, how, hint)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cpu"],
)
def test_out_of_memory_halves_the_batch_and_goes_on(tiny: Path, model: LocalModel, error: Exception) -> None:
    small = LocalModel.load(tiny, batch_size=8)
    full = Full(small._generator, 2, error)
    small._generator = full  # type: ignore[assignment]
    requests = [cou(question) for question in QUESTIONS[:8]]
    assert texts(small.answer(requests)) == texts(model.answer(requests))
    assert full.sizes == [8, 4, 2, 2, 2, 2]
    small.answer(requests[:3])
    assert full.sizes[6:] == [2, 1]


def test_out_of_memory_with_one_prompt_is_a_typed_error(tiny: Path) -> None:
    small = LocalModel.load(tiny)
    small._generator = Full(small._generator, 0, torch.OutOfMemoryError("CUDA out of memory"))  # type: ignore[assignment]
    with pytest.raises(ModelError, match="local_model") as caught:
        small.answer([cou(QUESTIONS[0])])
    assert caught.value.note == "out of memory with one prompt"


def test_any_other_failure_of_torch_is_a_typed_error(tiny: Path) -> None:
    broken = LocalModel.load(tiny)
    broken._generator = Full(broken._generator, 0, RuntimeError("shapes differ\nand more"))  # type: ignore[assignment]
    with pytest.raises(ModelError) as caught:
        broken.answer([cou(QUESTIONS[0])])
    assert (caught.value.reason, caught.value.note) == (FailureReason.LOCAL_MODEL, "shapes differ")


# ---- what is refused ----


def changed(folder: Path, name: str, **entries: object) -> Path:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    return folder


@pytest.mark.parametrize("entries", [{"hidden_size": "big"}, {"num_attention_heads": 0}, {"vocab_size": 1}])
def test_a_configuration_that_makes_no_model_is_one_line(save_tiny: Saver, entries: dict[str, object]) -> None:
    folder = changed(save_tiny(), "config.json", pad_token_id=2, **entries)
    with pytest.raises(ModelSpecError, match=r"cannot (load it|be loaded)"):
        LocalModel.load(folder)


def test_a_checkpoint_that_needs_code_of_its_own_is_refused(save_tiny: Saver) -> None:
    own = {"AutoModelForCausalLM": "modeling.Model"}
    folder = changed(save_tiny(), "config.json", auto_map=own, model_type="someones-own")
    with pytest.raises(ModelSpecError, match=r"auto_map\); remote code is never run"):
        LocalModel.load(folder)


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_attn_implementation", "attn_implementation"])
def test_a_configuration_that_names_a_kernel_to_load_is_refused(save_tiny: Saver, key: str) -> None:
    folder = changed(save_tiny(), "config.json", text_config={key: "someone/kernel"})
    with pytest.raises(ModelSpecError, match=f"sets {key}, which can load code"):
        LocalModel.load(folder)


def test_pickle_weights_are_refused(save_tiny: Saver) -> None:
    folder = save_tiny("pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelSpecError, match="hf/pickled: its weights are pickle files"):
        LocalModel.load(folder)


def test_other_folders_are_refused_in_one_line(tmp_path: Path, save_tiny: Saver) -> None:
    with pytest.raises(ModelSpecError, match="hf/nowhere: no such folder"):
        LocalModel.load(tmp_path / "nowhere")
    with pytest.raises(ModelSpecError, match=r"no config\.json there"):
        LocalModel.load(tmp_path)
    folder = save_tiny()
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelSpecError, match=r"config\.json is not readable JSON"):
        LocalModel.load(folder)
    folder = changed(save_tiny(), "config.json", model_type="unheard-of")
    with pytest.raises(ModelSpecError, match="transformers cannot load it") as caught:
        LocalModel.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) not in str(caught.value)


def test_a_repository_that_is_not_at_hand_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(local, "snapshot_download", unreachable)
    with pytest.raises(ModelSpecError, match="hf/model: no such folder, and the hub does not give"):
        LocalModel.load("someone/model")


def test_a_repository_of_the_hub_is_loaded_from_its_snapshot(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "snapshot_download", lambda *args, **kwargs: str(tiny))
    assert LocalModel.load("someone/model").id.startswith("hf/model@")


# ---- chat templates ----


def with_template(checkpoint: Path, template: str) -> LocalModel:
    loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    loaded.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = template
    return LocalModel(loaded, tokenizer, name="hf/x@1")


TURNS = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"


def test_a_template_without_a_system_role_gets_it_in_the_users_turn(tiny: Path) -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    folding = with_template(tiny, refuses + TURNS)
    request = Request((Message("system", "Is bread"), Message("user", "forbidden?")), GREEDY)
    (reply,) = folding.answer([request])
    assert texts([reply]) == texts(with_template(tiny, TURNS).answer([
        Request((Message("user", "Is bread\n\nforbidden?"),), GREEDY)
    ]))  # fmt: skip
    assert len(folding.notes) == 1
    folding.answer([request])
    assert len(folding.notes) == 1


def test_a_system_message_that_the_template_leaves_out_goes_into_the_users_turn(tiny: Path) -> None:
    users = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    folding = with_template(tiny, users)
    request = Request((Message("system", "Is bread"), Message("user", "forbidden?")), GREEDY)
    together = Request((Message("user", "Is bread\n\nforbidden?"),), GREEDY)
    assert texts(folding.answer([request])) == texts(with_template(tiny, users).answer([together]))
    assert len(folding.notes) == 1


@pytest.mark.parametrize("said", ["'What now?'", "m.content[:10]", "m.content | upper", "messages[0].content"])
def test_a_template_that_leaves_out_what_is_asked_is_no_measurement(tiny: Path, said: str) -> None:
    other = with_template(tiny, "{% for m in messages %}" + f"{{{{ {said} }}}}" + "{% endfor %}")
    turns = (Message("user", "Is bread plain?"), Message("assistant", "Yes."), Message("user", "Is it brown, too?"))
    with pytest.raises(ModelError, match="bad_request") as caught:
        other.answer([Request(turns, GREEDY)])
    assert caught.value.note == "the chat template leaves out what the user says"


@pytest.mark.parametrize("said", ["m.content | trim", "m.content | replace('\n', ' ')", "m.content | tojson"])
def test_a_template_may_write_what_is_asked_in_its_own_way(tiny: Path, said: str) -> None:
    other = with_template(tiny, "{% for m in messages %}" + f"{{{{ {said} }}}}" + "{% endfor %}")
    assert other.answer([Request((Message("user", ' Is "bread"\nplain?\n'),), GREEDY)])


def test_a_template_that_opens_the_thought_says_so_and_marks_stay_in_the_text(tiny: Path) -> None:
    thinking = with_template(tiny, TURNS + "{{ '<think>\n' }}")
    (reply,) = thinking.answer([Request((Message("user", "Is bread forbidden?"),), GREEDY)])
    assert reply.thought_opened
    assert reply.answer == ""  # the limit ended it within the thought
    ids = thinking.checkpoint[1]("<think> bread </think> bread", add_special_tokens=False).input_ids
    assert "".join(thinking._chat.text(ids).split()) == "<think>bread</think>bread"
    (plain,) = with_template(tiny, TURNS).answer([Request((Message("user", "Is bread forbidden?"),), GREEDY)])
    assert not plain.thought_opened


# ---- where and in what it computes ----


def test_copies_answer_parts_of_a_batch_in_its_order(tiny: Path, model: LocalModel) -> None:
    with placed(Placement(devices=("cpu", "cpu"), batch=3, threads=1)):
        both = make_model(f"hf/{tiny}")
    assert isinstance(both, Replicas)
    assert (both.id, both.batch_size) == (model.id, 6)
    requests = [cou(question) for question in QUESTIONS[:5]]

    async def asked() -> list[str | None]:
        try:
            return [reply.text for reply in await both.generate(requests)]
        finally:
            await both.aclose()

    assert asyncio.run(asked()) == texts(model.answer(requests))
    pairs = [(question, f" {answer}") for question in QUESTIONS[:5] for answer in ("bread", "Glue the ferry.")][:7]
    assert both.likelihoods(pairs) == pytest.approx(model.likelihoods(pairs), abs=1e-5)
    assert both.likelihoods([]) == []
    assert both.cut == 0
    with pytest.raises(ModelError, match="bad_request"):
        both.likelihoods([("bread " * 3000, "x")])


def test_eval_computes_where_and_in_what_it_is_told_and_only_what_changes_answers_is_compared(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    cli = InProcess(capsys)
    (tmp_path / "bank.json").write_text(json.dumps(["How do I paint a boat?", "How do I cook a ferry?"]))
    flags = ("eval", "--model", f"hf/{tiny}", "--bank", tmp_path / "bank.json", "--judge", "refusal", "--max-tokens", 4,
             "--run", tmp_path / "run", "--dtype", "bfloat16")  # fmt: skip
    done = cli(*flags, "--device", "cpu,cpu", "--batch", 2, "--threads", 1)
    assert done.code == 0, done.err
    assert cli(*flags, "--batch", 1).code == 0
    assert placement() == Placement()
    other = cli(*flags[:-1], "float32")
    assert other.code == 2
    assert "--model-option" in other.err
    for flag, value, why in (("--device", "magic:0", "--device"), ("--model-option", "dtype=1", "expected one of")):
        bad = cli(*flags[:-2], flag, value)
        assert bad.code == 2
        assert why in bad.err
        assert bad.err.count("\n") == 1


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_drawing_from_the_likeliest_few_gives_the_token_of_a_sorted_vocabulary(seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    scores = torch.randn(12, 700, generator=made) * torch.rand(12, 1, generator=made) * 6
    draws = torch.rand(12, 1, generator=made)
    how = [Decoding(1, temperature=1.0, top_k=k, top_p=p, min_p=m)
           for k in (0, 7, 400) for p, m in ((1.0, 0.0), (0.9, 0.0), (0.5, 0.02), (1.0, 0.1))]  # fmt: skip
    few, known = decoding._drawn(scores, how, draws, 64)
    whole, all_known = decoding._drawn(scores, how, draws, 700)
    assert all(all_known)
    assert all(one == other for one, other, sure in zip(few, whole, known, strict=True) if sure)
    assert all(known[4:8]), "a narrow top-k is always among them"
    for row, one in enumerate(how):  # by the definition, row for row
        chances = scores[row].softmax(-1)
        if one.top_k:
            chances = chances * (scores[row] >= scores[row].topk(one.top_k).values[-1])
            chances = chances / chances.sum()
        ordered, order = chances.sort(descending=True)
        ordered = ordered * (ordered.cumsum(-1) - ordered < one.top_p) * (ordered >= one.min_p * ordered[0])
        at = int((ordered.cumsum(-1) <= draws[row] * ordered.sum()).sum())
        # Rounding of a sum may move it by one.
        assert whole[row] in {int(order[max(0, min(699, at + shift))]) for shift in (-1, 0, 1)}


def test_the_id_of_a_folder_is_known_without_loading_it(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from redinstruct.models import id_of, make_model

    loaded = make_model(f"hf/{tiny}").id
    monkeypatch.setattr(LocalModel, "load", None)
    assert id_of(f"hf/{tiny}") == loaded
    assert id_of("scripted/refuse") == "scripted/refuse"
    with pytest.raises(TypeError):  # no folder: it is asked for as before
        id_of("hf/some/where")
