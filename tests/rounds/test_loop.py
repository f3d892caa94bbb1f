"""The loop without a model: its file is checked as a whole, and a stage is done once for the same inputs."""

from __future__ import annotations

import json
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.errors import UsageError
from redinstruct.progress import Progress, StagePart
from redinstruct.rounds import read_config
from redinstruct.rounds.ledger import Ledger
from redinstruct.rounds.plot import front_svg
from redinstruct.rounds.run import carry_out
from tests.support.cli import ROOT, InProcess, nothing_written

EXAMPLES = ROOT / "docs" / "examples"
EVAL = '[[eval]]\nname = "harm"\nbanks = ["bank.json"]\njudge = "refusal"\n'
ALIGN = '[align]\n[[align.recipes]]\nstrategy = "blue"\n'
TRAINED = ALIGN.replace("[align]", '[align]\ndata = ["d.jsonl"]')
CHOSEN = "pick_every = 5\n"
PICK = """
[align.pick.safety]
name = "s"
banks = ["dev.json"]
judge = "exact"
measure = "attack_success"
[align.pick.utility]
name = "u"
banks = ["benign-dev.json"]
judge = "exact"
measure = "over_refusal"
"""


@pytest.mark.parametrize("name", ["loop-toy.toml", "loop-7b.toml", "loop-7b-8gpus.toml"])
def test_the_examples_are_read_and_their_paths_are_the_files(name: str) -> None:
    config = read_config(EXAMPLES / name)
    assert config.collect is not None
    assert config.align is not None
    assert Path(config.folder).parent.is_relative_to(EXAMPLES)
    assert all(Path(path).is_relative_to(EXAMPLES) for path in config.align.general)
    # Every key that is written in the file is one that the loop has: an unknown one is refused.
    assert tomllib.loads((EXAMPLES / name).read_text())


def test_options_of_any_kind_are_read_as_they_stand(tmp_path: Path) -> None:
    """Of the model, of its template: a number, a text, a flag, a table; none of them is anything but itself."""
    given = "model_options = { top_k = 5, chat_template_kwargs = { enable_thinking = false } }\n"
    (tmp_path / "loop.toml").write_text('model = "scripted/comply"\n' + EVAL + given, encoding="utf-8")
    (part,) = read_config(tmp_path / "loop.toml").eval
    assert part.model_options == {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}}


BAD: dict[str, tuple[str, str]] = {
    "a probe that nobody asks": (
        'model = "hf/m"\n' + EVAL + TRAINED.replace("[align]", '[align]\nprobe = ["p.jsonl"]').replace("blue", "kto"),
        "align.probe",
    ),
    "forms of nothing": (
        'model = "hf/m"\n' + EVAL + TRAINED.replace("blue", "general") + 'forms = ["story"]\n', "general: forms",
    ),
    "no TOML": ("model = ", "no TOML"),
    "no model": (EVAL, "model"),
    "no eval": ('model = "hf/m"\neval = []\n', "[[eval]]"),
    "unknown key": ('model = "hf/m"\nmodle = 1\n' + EVAL, "modle"),
    "unknown key within": ('model = "hf/m"\n' + EVAL + "limmit = 3\n", "limmit"),
    "a number as text": ('model = "hf/m"\nrounds = "2"\n' + EVAL, "rounds"),
    "measure": ('model = "hf/m"\n' + EVAL + 'measure = "luck"\n', "measure"),
    "no bank": ('model = "hf/m"\n[[eval]]\nname = "harm"\nbanks = []\njudge = "refusal"\n', "bank"),
    "twice": ('model = "hf/m"\n' + EVAL + EVAL, "twice"),
    "a name that is a path": ('model = "hf/m"\n' + EVAL.replace("harm", "../harm"), "eval.name"),
    "rounds": ('model = "hf/m"\nrounds = 0\n' + EVAL, "rounds"),
    "rounds of nothing": ('model = "hf/m"\nrounds = 2\n' + EVAL, "rounds"),
    "margin": ('model = "hf/m"\nmargin = -0.1\n' + EVAL, "margin"),
    "two margins": ('model = "hf/m"\nmargin = 0.05\n' + EVAL + '[utility]\nsuite = "toy"\n', "utility.margin"),
    "an endpoint cannot be aligned": ('model = "openai/m"\n' + EVAL + ALIGN, "hf/FOLDER"),
    "carry": ('model = "hf/m"\n' + EVAL + ALIGN.replace("[align]", '[align]\ncarry = "red"'), "carry"),
    "nothing to learn from": ('model = "hf/m"\n' + EVAL + ALIGN, "nothing to learn"),
    "a rank of nothing": ('model = "hf/m"\n' + EVAL + TRAINED + "lora = 0\n", "lora"),
    "no process": ('model = "hf/m"\n' + EVAL + TRAINED + "memory = { processes = 0 }\n", "memory.processes"),
    "one process's strategy": (
        'model = "hf/m"\n' + EVAL + TRAINED.replace("blue", "kto") + "memory = { processes = 2 }\n", "in one process",
    ),
    "an unknown way to fit": ('model = "hf/m"\n' + EVAL + TRAINED + "memory = { swap = 1 }\n", "swap"),
    "a choice without figures": (
        'model = "hf/m"\n' + EVAL + '[align]\ndata = ["d.jsonl"]\n'
        '[[align.recipes]]\nstrategy = "resta"\ncoefficients = [0.1, 0.2]\n',
        "align.pick",
    ),
    "a choice among nothing": ('model = "hf/m"\n' + EVAL + TRAINED + "pick_every = 0\n" + PICK, "pick_every"),
    "a choice where none can be made": (
        'model = "hf/m"\n' + EVAL + TRAINED.replace("blue", "kto") + "pick_every = 5\n" + PICK, "pick_every",
    ),
    "coefficients of nothing": (
        'model = "hf/m"\n' + EVAL + TRAINED + "coefficients = [0.1, 0.2]\n" + PICK, "coefficients",
    ),
    "a coefficient that adds nothing": (
        'model = "hf/m"\n' + EVAL + TRAINED.replace("blue", "resta") + "coefficients = [0.0, 0.2]\n" + PICK,
        "coefficients",
    ),
    "a safety that is none": (
        'model = "hf/m"\n' + EVAL + TRAINED + PICK.replace('"attack_success"', '"over_refusal"'), "align.pick.safety",
    ),
    "a utility that is none": (
        'model = "hf/m"\n' + EVAL + TRAINED + PICK.replace('measure = "over_refusal"\n', ""), "align.pick.utility",
    ),
    "a choice on no questions": (
        'model = "hf/m"\n' + EVAL + TRAINED + PICK.replace('["dev.json"]', "[]"), "align.pick.safety",
    ),
    "a model asked otherwise than it was trained": (
        'model = "hf/m"\n' + EVAL + "template_options = { enable_thinking = false }\n" + TRAINED, "template_options",
    ),
    "a margin of the choice": (
        'model = "hf/m"\n' + EVAL + TRAINED + PICK.replace("[align.pick.s", "[align.pick]\nmargin = 2\n[align.pick.s"),
        "align.pick: margin",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_line_that_names_the_key_and_writes_nothing(cli: InProcess, tmp_path: Path, name: str) -> None:
    text, says = BAD[name]
    (tmp_path / "loop.toml").write_text(text)
    with nothing_written(tmp_path):
        assert says in cli("loop", tmp_path / "loop.toml").error_line


def test_a_choice_on_the_questions_that_are_measured_on_is_said_before_anything_is_spent(
    cli: InProcess, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    for name in ("bank", "dev", "benign-dev"):
        (tmp_path / f"{name}.json").write_text('["What is the colour of item one?"]')
    (tmp_path / "d.jsonl").write_text("")
    plain = 'model = "hf/m"\n' + EVAL + TRAINED + "pick_every = 5\n" + PICK
    for text, said in ((plain, False), (plain.replace("dev.json", "../" + tmp_path.name + "/bank.json", 1), True)):
        (tmp_path / "loop.toml").write_text(text)
        done = cli("loop", tmp_path / "loop.toml", "--check")
        assert done.code == 0
        assert ("bank.json" in done.err and "chosen" in done.err) == said, done.err


@pytest.mark.parametrize("missing", ["bank.json", "dev.json", "d.jsonl", "general.jsonl", "topics.json", "own.txt"])
def test_what_a_later_stage_reads_is_looked_for_before_the_first_one(
    missing: str, cli: InProcess, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    for name in ("bank.json", "dev.json", "benign-dev.json"):
        (tmp_path / name).write_text('["What is the colour of item one?"]')
    (tmp_path / "own.txt").write_text("<question>")
    for name in ("d.jsonl", "general.jsonl"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "topics.json").write_text('{"colours": ["red ones"]}')
    picked = PICK.replace('name = "s"', f'name = "s"\nprompts = ["{tmp_path}/own.txt"]')
    text = 'model = "hf/m"\n' + EVAL + TRAINED.replace("[[", 'general = ["general.jsonl"]\n[[') + CHOSEN + picked
    (tmp_path / "loop.toml").write_text(text + '[collect]\nteacher = "scripted/red-teacher"\ntopics = "topics.json"\n')
    assert cli("loop", tmp_path / "loop.toml", "--check").code == 0
    (tmp_path / missing).unlink()
    with nothing_written(tmp_path):
        assert missing in cli("loop", tmp_path / "loop.toml").error_line


@pytest.mark.parametrize(
    ("forms", "general", "said"),
    [
        (None, True, None),
        (None, False, "preset robust (forms names others): after-harmless is made of ordinary conversations"),
        (["dialogue", "steps", "story", "deep-prefix", "harmless-twins"], True, None),
        (["chat"], True, "align.recipes blue: forms: 'chat' is not a form of asking"),
        (["harmless-twins"], False, "give general rows"),
    ],
)
def test_a_form_of_asking_that_can_not_be_made_is_found_by_the_check(
    cli: InProcess, tmp_path: Path, forms: list[str] | None, general: bool, said: str | None
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    for name in ("d.jsonl", "general.jsonl"):
        (tmp_path / name).write_text("{}")
    text = 'model = "hf/m"\n' + EVAL + TRAINED + (f"forms = {json.dumps(forms)}\n" if forms else "preset = 'robust'\n")
    text = text.replace("[[align", 'general = ["general.jsonl"]\n[[align', 1) if general else text
    (tmp_path / "loop.toml").write_text(text)
    done = cli("loop", tmp_path / "loop.toml", "--check")
    assert done.code == (2 if said else 0), done.err
    assert (said or "can be carried out") in done.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("limit = 0", "at least 1"),
        ("max_tokens = 0", "max"),
        ("judge_model = 'scripted/echo'", "asks no model"),
    ],
)
def test_what_only_the_stage_finds_wrong_leaves_nothing_either(
    line: str, said: str, cli: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    (tmp_path / "loop.toml").write_text('model = "scripted/weak"\nfolder = "a/b"\n' + EVAL + line + "\n")
    with nothing_written(tmp_path):
        assert said in cli("loop", tmp_path / "loop.toml").error_line


def test_a_folder_that_is_a_file_is_found_by_the_check(cli: InProcess, tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    (tmp_path / "taken").write_text("")
    (tmp_path / "loop.toml").write_text('model = "scripted/weak"\nfolder = "taken"\n' + EVAL)
    assert "is no folder" in cli("loop", tmp_path / "loop.toml", "--check").error_line


def test_a_file_that_is_missing_or_no_text(cli: InProcess, tmp_path: Path) -> None:
    assert "no such file" in cli("loop", tmp_path / "nothing.toml").error_line
    (tmp_path / "noise.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in cli("loop", tmp_path / "noise.toml").error_line


class TestLedger:
    def test_a_stage_is_done_once_for_the_same_inputs(self, tmp_path: Path) -> None:
        done: list[str] = []

        def work(place: Path) -> dict[str, Any]:
            place.mkdir()
            done.append(place.name)
            return {"n": len(done)}

        first = Ledger(tmp_path).stage("one", {"a": 1, "b": [2]}, work)
        again = Ledger(tmp_path).stage("one", {"b": [2], "a": 1}, work)
        assert (first.skipped, again.skipped, len(done)) == (False, True, 1)
        assert (again.figures, again.place) == (first.figures, first.place)
        other = Ledger(tmp_path).stage("one", {"a": 2, "b": [2]}, work)
        assert (other.skipped, len(done)) == (False, 2)
        assert other.place != first.place

    def test_a_stage_that_failed_or_whose_folder_is_gone_is_done_again(self, tmp_path: Path) -> None:
        def fails(place: Path) -> dict[str, Any]:
            place.mkdir()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Ledger(tmp_path).stage("one", {}, fails)
        calls: list[Path] = []

        def work(place: Path) -> dict[str, Any]:
            place.mkdir(exist_ok=True)
            calls.append(place)
            return {}

        stage = Ledger(tmp_path).stage("one", {}, work)
        Path(stage.place).rmdir()
        assert not Ledger(tmp_path).stage("one", {}, work).skipped
        assert len(calls) == 2

    def test_who_listens_is_told_which_stage_of_how_many(self, tmp_path: Path) -> None:
        told: list[Progress] = []

        def work(place: Path) -> dict[str, Any]:
            ledger.tell(Progress(1, 2, "asking"))
            place.mkdir(exist_ok=True)
            return {}

        for _ in range(2):
            ledger = Ledger(tmp_path, told.append, of=2, before=1)
            ledger.stage("one", {}, work, "asking the base")
        first, second, third, fourth = (state.part for state in told)
        assert first == second == StagePart(2, 3, "asking the base")
        assert third is not None
        assert (third.number, third.skipped, third.seconds is None) == (2, False, False)
        assert fourth is not None
        assert fourth.skipped

    @pytest.mark.parametrize("record", [b"", b"{", b'{"name": 1}', b"\xff"])
    def test_a_record_that_does_not_read_counts_as_none(self, tmp_path: Path, record: bytes) -> None:
        def work(place: Path) -> dict[str, Any]:
            place.mkdir(exist_ok=True)
            return {}

        Ledger(tmp_path).stage("one", {}, work)
        next((tmp_path / "stages").glob("*.json")).write_bytes(record)
        assert not Ledger(tmp_path).stage("one", {}, work).skipped


def test_without_align_it_measures_and_the_second_time_asks_nothing(tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text('["What is the colour of item one?", "And of item two?"]')
    (tmp_path / "loop.toml").write_text('model = "scripted/weak"\n' + EVAL + 'prompts = ["standard"]\n')
    first = carry_out(read_config(tmp_path / "loop.toml"))
    again = carry_out(read_config(tmp_path / "loop.toml"))
    assert first.models == again.models
    assert [stage.skipped for stage in again.stages] == [True]
    (tmp_path / "bank.json").write_text('["What is the colour of item three?"]')
    changed = carry_out(read_config(tmp_path / "loop.toml"))
    assert [stage.skipped for stage in changed.stages] == [False]
    assert changed.models[0].results[0].counts.total == 1


def test_a_loop_that_was_moved_asks_nothing_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "bank.json").write_text('["What is the colour of item one?"]')
    (first / "loop.toml").write_text('model = "scripted/weak"\n' + EVAL)
    carry_out(read_config(first / "loop.toml"))
    first.rename(second)
    (second / "loop.toml").write_text('model = "scripted/weak"\n' + EVAL + "concurrency = 3\n")
    moved = carry_out(read_config(second / "loop.toml"))
    assert [stage.skipped for stage in moved.stages] == [True]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Ledger(tmp_path / "file" / "loop")


shares = st.floats(0, 1)
points = st.lists(
    st.tuples(st.text(max_size=20), shares, shares, st.tuples(shares, shares)), max_size=8
)  # fmt: skip


@given(points)
def test_the_picture_is_well_formed_whatever_the_names_are(found: list[Any]) -> None:
    root = ElementTree.fromstring(front_svg(found, 200))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "line", "circle"}
    assert sum(element.tag.endswith("circle") for element in root.iter()) == len(found)


@given(st.text("abcdefgh-", min_size=1, max_size=20), shares, shares)
def test_a_name_in_the_picture_never_stands_over_the_axis(name: str, rate: float, useful: float) -> None:
    root = ElementTree.fromstring(front_svg([(name, rate, useful, (rate, rate))], 200))
    texts = {element.text: element for element in root.iter() if element.tag.endswith("text") and element.text == name}
    ticks = [e for e in root.iter() if e.get("class") == "small" and e.get("text-anchor") == "end"]
    axis = max(float(e.attrib["x"]) for e in ticks)
    assert float(texts[name].attrib["x"]) - 3.8 * len(name) > axis


COLLECT = '[collect]\nteacher = "scripted/red-teacher"\n'
WRONG = {
    **dict.fromkeys(("limit = 0", "limit = -1", "limit = 99999999999999999999"), "--limit"),
    **dict.fromkeys(("epochs = 0", "epochs = 20000"), "--epochs"),
    **dict.fromkeys(("max_tokens = 0", "max_tokens = 99999999999999"), "--max-tokens"),
    **dict.fromkeys(("temperature = nan", "temperature = -1.0", "temperature = inf"), "--temperature"),
    **dict.fromkeys(("top_p = 0.0", "top_p = 2.0", "top_p = nan"), "--top-p"),
    **dict.fromkeys(("concurrency = 0", "concurrency = -1", "concurrency = 99999999999"), "--concurrency"),
    'chat_template = "vicuna"': "--chat-template must be one of native, none",
    'judge_format = "xml"': "--judge-format must be one of line, json",
    'dtype = "int8"': "--dtype must be one of",
    'protocol = "x"': "--protocol",
    'protocol = "paper-2023"': "--judge paper",
    'rubric = "bank.json"': "--rubric is for --judge rubric",
    'guard_kind = "x"': "--guard-kind",
    'judge_model = "scripted/judge"': "asks no model",
    'system = ""': "system prompt is empty",
    'prompts = ["nosuch"]': "nosuch",
    'columns = { x = "y" }': "--column x",
    'measure = "over_refusal"\n[[eval]]\nname = "f"\nbanks = ["bank.json"]\njudge = "nosuch"': "eval f: unknown judge",
    '[utility]\nsuite = ""': "utility: --suite",
    '[utility]\nsuite = "toy"\nlimit = 0': "utility: --limit",
    '[utility]\nsuite = "toy"\ndata = "nosuch"': "utility: --data",
    COLLECT + "per_subtopic = 0": "collect: --per-subtopic",
    COLLECT + "blue = -1": "collect: --blue",
    COLLECT + "near = nan": "collect: --near",
    COLLECT + "near = 2.0": "collect: --near",
    COLLECT + "critique = true": "collect: --critique needs --judge",
    COLLECT + 'judge = "rubric"': "collect: --judge rubric",
    COLLECT + 'answerer = "nosuch/m"': "collect: unknown model 'nosuch/m'",
    '[collect]\nteacher = "nosuch"': "collect: unknown model 'nosuch'",
}
"""What stands below an ``[[eval]]`` -> what the check says; every line is one that its stage would refuse."""


@pytest.mark.parametrize("lines", list(WRONG))
def test_the_check_finds_whatever_a_stage_would_refuse(lines: str, cli: InProcess, tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    (tmp_path / "loop.toml").write_text('model = "scripted/weak"\n' + EVAL + lines + "\n")
    with nothing_written(tmp_path):
        assert WRONG[lines] in cli("loop", tmp_path / "loop.toml", "--check").error_line


WRONG_RECIPES = {
    'strategy = "bleu"': "--strategy bleu: expected one of",
    'strategy = "kto"\nsettings = { nosuch = 1 }': "there is no setting nosuch",
    "settings = { step = 3 }": "did you mean steps?",
    "settings = { steps = nan }": "--steps must be a whole number",
    "settings = { steps = 0 }": "--steps must be at least 1",
    "settings = { deep_prefix_tokens = 0 }": "--deep-prefix-tokens must be at least 1",
    "settings = { optimizer = 'sgd' }": "--optimizer must be one of adamw",
    "settings = { schedule = 3 }": "--schedule must be one of",
    "settings = { learning_rate = nan }": "--lr must be above 0",
    "parameters = { nosuch = 1.0 }": "--set nosuch",
    "parameters = { blue_weight = nan }": "--set blue_weight must be at least 0",
    "parameters = { blue_weight = -inf }": "--set blue_weight must be at least 0",
    'preset = "nosuch"': "--preset nosuch",
    "drop = nan": "--drop must lie between 0 and 1, the last excluded",
    "drop = 0.3": "--drop: only with --strategy resta",
    "parameters = { beta = 0.1 }": "--set beta: --strategy blue does not read it",
    'strategy = "kto"\nmemory = { attention = "eager" }': "--attention has no effect there",
    'strategy = "dpo"\nsettings = { deep_prefix = 0.3 }': "--deep-prefix has no effect there",
    "memory = { gb = -1.0 }": "--memory must lie between 0 and 1,000,000, both excluded",
}


@pytest.mark.parametrize("lines", list(WRONG_RECIPES))
def test_the_check_finds_a_recipe_that_no_alignment_has(lines: str, cli: InProcess, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    (tmp_path / "d.jsonl").write_text("")
    recipe = TRAINED.replace('strategy = "blue"\n', "") if "strategy" in lines else TRAINED
    (tmp_path / "loop.toml").write_text('model = "hf/m"\n' + EVAL + recipe + lines + "\n")
    with nothing_written(tmp_path):
        line = cli("loop", tmp_path / "loop.toml", "--check").error_line
    assert "align.recipes " in line
    assert WRONG_RECIPES[lines] in line


@pytest.mark.parametrize(
    ("strategy", "red", "data", "refused"),
    [
        ("blue-red", False, False, True),
        ("npo-len", False, False, True),
        ("resta", False, False, True),
        ("dpo", False, False, True),
        ("blue-red", True, False, False),
        ("blue-red", False, True, False),
        ("blue", False, False, False),
        ("kto", False, False, False),
    ],
)
def test_the_check_finds_a_recipe_whose_red_rows_nobody_collects(
    strategy: str, red: bool, data: bool, refused: bool, cli: InProcess, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    (tmp_path / "d.jsonl").write_text("")
    trained = (TRAINED if data else ALIGN).replace('"blue"', f'"{strategy}"')
    collected = f'[collect]\nteacher = "scripted/red-teacher"\nred = {str(red).lower()}\n'
    (tmp_path / "loop.toml").write_text('model = "hf/m"\n' + EVAL + trained + collected)
    done = cli("loop", tmp_path / "loop.toml", "--check")
    assert done.code == (2 if refused else 0), done.err
    assert (f"align.recipes {strategy}: --strategy {strategy} trains on red rows" in done.err) == refused


def test_a_folder_without_a_name_is_refused(cli: InProcess, tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text('model = "scripted/weak"\nfolder = ""\n' + EVAL)
    assert "folder: is empty" in cli("loop", tmp_path / "loop.toml", "--check").error_line
