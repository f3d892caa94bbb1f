"""Benchmark files as their authors published them, read into the columns of the harness's tasks."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.errors import BankError
from redinstruct.utility_check.data import HHH_PARTS, LocalData, find_hhh, read_hhh, read_local
from tests.support.benchmarks import HHH_SIZES, bbq_row, hhh_row, write_benchmarks, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


def local(folder: Path, task: str) -> LocalData:
    found = read_local(folder, task)
    assert found is not None
    return found


def test_truthfulqa_sets_all_correct_answers_against_all_incorrect_ones(folder: Path) -> None:
    first = local(folder, "truthfulqa_mc2").splits["validation"][0]
    assert first["mc2_targets"] == {
        "choices": ["It is blue", "Blue", "A kind of blue", "It is red", "It has no colour"],
        "labels": [1, 1, 1, 0, 0],
    }
    assert first["mc1_targets"]["choices"] == ["It is blue", "It is red", "It has no colour"]
    assert first["mc1_targets"]["labels"] == [1, 0, 0]


def test_both_shapes_of_mmlu_read_alike(folder: Path) -> None:
    letters, numbers = local(folder, "mmlu_anatomy").splits, local(folder, "mmlu_astronomy").splits
    assert letters == numbers
    assert letters["dev"][0] == {
        "question": "How many legs has chair 0?",
        "choices": ["one", "two", "three", "four"],
        "answer": 3,
    }
    assert {split: len(rows) for split, rows in letters.items()} == {"test": 7, "dev": 5}


def test_a_bbh_file_serves_every_variant_of_its_task(folder: Path) -> None:
    rows = local(folder, "bbh_fewshot_navigate").splits
    assert rows == local(folder, "bbh_cot_zeroshot_navigate").splits
    assert rows["test"][0]["target"] == "Yes"


def test_winogender_is_read_from_its_sentence_ids(folder: Path) -> None:
    rows = local(folder, "winogender_all").splits["test"]
    assert [(row["pronoun"], row["gender"], row["label"]) for row in rows[:4]] == [
        ("his", "male", 0),
        ("her", "female", 0),
        ("their", "neutral", 0),
        ("his", "male", 1),
    ]
    assert {(row["occupation"], row["participant"]) for row in rows} == {("baker", "guest")}


def test_crows_pairs_and_bbq_keep_the_columns_that_their_tasks_read(folder: Path) -> None:
    (pair, *_) = local(folder, "crows_pairs_english").splits["test"]
    assert set(pair) == {"sent_more", "sent_less", "bias_type"}
    rows = local(folder, "bbq").splits["test"]
    assert len(rows) == 6
    assert rows[0]["additional_metadata"] == {"stereotyped_groups": ["old"]}
    assert rows[1]["label"] == 1


def test_any_task_can_be_given_in_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "arc_easy").mkdir()
    (tmp_path / "arc_easy" / "test.jsonl").write_text('{"question": "What?"}\n\n{"question": "Who?"}\n')
    assert local(tmp_path, "arc_easy").splits == {"test": [{"question": "What?"}, {"question": "Who?"}]}
    assert read_local(tmp_path, "arc_challenge") is None


def test_both_shapes_of_hhh_give_the_same_preferences(folder: Path, tmp_path: Path) -> None:
    files = find_hhh(folder)
    assert tuple(files) == HHH_PARTS
    assert {part: len(read_hhh(path)) for part, path in files.items()} == HHH_SIZES
    (tmp_path / "hhh").mkdir()
    for part in HHH_PARTS:
        lines = []
        for number in range(HHH_SIZES[part]):
            scores = hhh_row(part, number)["target_scores"]
            targets = {"choices": list(scores), "labels": list(scores.values())}
            lines.append(json.dumps({"input": f"Tell me about {part} number {number}.", "targets": targets}))
        (tmp_path / "hhh" / f"{part}.jsonl").write_text("\n".join(lines))
    for part, path in find_hhh(tmp_path).items():
        assert read_hhh(path) == read_hhh(files[part])
    assert all(item.chosen.startswith("A good answer") for item in read_hhh(files["honest"]))


BAD_FILES = {
    "TruthfulQA.csv": ("truthfulqa_mc2", "Question,Best Answer\nWhat?,That\n", "no column 'Correct Answers'"),
    "bbh/navigate.json": ("bbh_fewshot_navigate", '{"examples": [{"input": "SECRET"}]}', "row 1 has no text 'target'"),
    "mmlu/test/anatomy_test.csv": ("mmlu_anatomy", "SECRET,a,b,c,d,E\n", "row 1 its answer is neither"),
    "winogender/all_sentences.tsv": ("winogender_all", "sentid\tsentence\nSECRET\tSECRET\n", "row 1 its sentid"),
    "crows_pairs/crows_pairs_anonymized.csv": ("crows_pairs_english", "sent_more,sent_less,bias_type\nSECRET\n",
                                               "row 1 is cut short"),
    "bbq/Age.jsonl": ("bbq", '{"answer_info": {}, "label": 0}\n', "row 1 is not BBQ's"),
    "own/test.jsonl": ("own", '{"a": 1}\nSECRET\n', "row 2 is no JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_row_is_named_and_not_quoted(name: str, tmp_path: Path) -> None:
    task, text, complaint = BAD_FILES[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if task == "mmlu_anatomy":
        (tmp_path / "mmlu" / "dev").mkdir()
        (tmp_path / "mmlu" / "dev" / "anatomy_dev.csv").write_text("a,b,c,d,e,A\n")
    with pytest.raises(BankError) as raised:
        read_local(tmp_path, task)
    assert complaint in str(raised.value)
    assert path.name in str(raised.value)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    "row",
    [
        {"input": "What?"},
        {"input": "What?", "target_scores": {"one": 1}},
        {"input": "What?", "target_scores": {"one": 1, "two": 1}},
        {"input": "What?", "targets": {"choices": ["one", "two"], "labels": [1]}},
        {"target_scores": {"one": 1, "two": 0}},
    ],
)
def test_a_preference_needs_one_chosen_and_one_rejected_answer(row: object, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="row 1"):
        read_hhh(write_json(tmp_path / "task.json", {"examples": [row]}))


def test_a_wrong_bbq_row_is_refused(tmp_path: Path) -> None:
    row = bbq_row(0, "ambig")
    del row["answer_info"]["ans1"]
    (tmp_path / "bbq").mkdir()
    (tmp_path / "bbq" / "Age.jsonl").write_text(json.dumps(row))
    with pytest.raises(BankError, match="all three answers"):
        read_local(tmp_path, "bbq")


@settings(max_examples=40)
@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(BAD_FILES)))
def test_no_file_makes_a_reader_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if name.startswith("mmlu"):
        (folder / "mmlu" / "dev").mkdir()
        (folder / "mmlu" / "dev" / "anatomy_dev.csv").write_bytes(data)
    with contextlib.suppress(BankError):
        read_local(folder, BAD_FILES[name][0])


@pytest.mark.data
def test_the_published_files_have_the_published_sizes(shared_data: Path) -> None:
    assert len(local(shared_data, "truthfulqa_mc2").splits["validation"]) == 817
    for path in sorted((shared_data / "bbh").glob("*.json")):
        assert len(local(shared_data, f"bbh_fewshot_{path.stem}").splits["test"]) == 250
    subjects = sorted(path.stem.removesuffix("_test") for path in (shared_data / "mmlu" / "test").glob("*.csv"))
    found = {subject: local(shared_data, f"mmlu_{subject}").splits for subject in subjects}
    assert len(found) == 8
    assert {len(splits["dev"]) for splits in found.values()} == {5}
    assert {subject: len(splits["test"]) for subject, splits in found.items()}["anatomy"] == 135
