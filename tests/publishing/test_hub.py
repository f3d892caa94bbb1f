"""``redinstruct hub`` against a hub on this machine: private by default, red data kept back, revisions pinned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redinstruct.errors import UsageError
from redinstruct.files import digest_of
from redinstruct.harmfulqa.published import import_published
from redinstruct.harmfulqa.release import export
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.publishing import Repository, pack, repository
from tests.support.cli import InProcess, tree
from tests.support.hub import TOKEN, Hub

pytest.importorskip("huggingface_hub", reason="the [hub] extra is not installed")

# huggingface_hub's upload of large files warns of its own client's argument.
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # its servers are not the hub's
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # tests of local models turn it on
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(capsys)


def talk(*words: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[at % 2], "value": word} for at, word in enumerate(words)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Files that ``export`` wrote of one question with a blue and a red conversation, each with its cards."""
    folder = tmp_path_factory.mktemp("written")
    rows = [{
        "id": "q1", "topic": "Nature", "subtopic": "Sky", "question": "Why are the clouds over the lake so white?",
        "blue_conversations": {"0": talk("Tell me about it", "Gladly, it is like this")},
        "red_conversations": {"0": talk("And the rest of it?", "It is a gruelling affair")},
    }]  # fmt: skip
    (folder / "public.json").write_text(json.dumps(rows))
    import_published(folder / "public.json", folder / "run")
    for red in (False, True):
        (folder / str(red)).mkdir()
        export(
            folder / "run",
            ExportSettings("harmfulqa", include_red=red, licence="CC-BY-4.0"),
            folder / str(red) / "data.json",
        )
    return {red: folder / str(red) for red in (False, True)}


def exported(written: dict[bool, Path], folder: Path, *, red: bool = False) -> Path:
    """A copy of such a file, beside its cards."""
    shutil.copytree(written[red], folder, dirs_exist_ok=True)
    return folder / "data.json"


def checkpoint(folder: Path) -> Path:
    """What stands in a checkpoint's folder; the weights are an empty safetensors file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 8, "hidden_size": 4}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "README.md").write_text("---\ntags: [redinstruct]\n---\n# A model\n")
    (folder / "optimizer.pt").write_bytes(b"x")
    return folder


# ---- names ----


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("me/data", Repository("me/data")),
        ("hf/me/data@v1.0", Repository("me/data", "v1.0")),
        (f"me/data@{'a' * 40}", Repository("me/data", "a" * 40)),
    ],
)
def test_a_repository_s_name(name: str, expected: Repository) -> None:
    assert repository(name) == expected
    assert expected.pinned == (expected.revision == "a" * 40)


@pytest.mark.parametrize("name", ["data", "a/b/c", "me/..", "../x/y", "me/data@", "me/da ta", "me/data@a b", ""])
def test_what_is_no_name_of_a_repository(name: str) -> None:
    with pytest.raises(UsageError, match="expected OWNER/NAME of a repository"):
        repository(name)


# ---- data ----


def test_data_goes_with_its_card_to_a_private_repository_and_comes_back_the_same(
    written: dict[bool, Path], cli: InProcess, tmp_path: Path, hub: Hub
) -> None:
    file = exported(written, tmp_path)
    sent = cli("hub", "push", file, "me/data", "--json")
    assert sent.code == 0, sent.err
    repo = hub.repos["dataset", "me/data"]
    assert (repo.private, sent.json["private"], sent.json["revision"]) == (True, True, repo.head)
    held = repo.commits[repo.head]
    assert held["data.json"] == file.read_bytes()
    assert set(held) == {"data.json", "data.json.card.json", "README.md"}
    assert held["README.md"].decode().startswith("---\nlicense: cc-by-4.0\ntags: [redinstruct, safety]\nconfigs:\n")
    assert b"gruelling" not in b"".join(held.values())
    got = cli("hub", "pull", f"me/data@{repo.head}", "--kind", "dataset", "--out", tmp_path / "got")
    assert got.code == 0, got.err
    assert {path.name for path in (tmp_path / "got").iterdir()} == set(held)
    assert digest_of(tmp_path / "got" / "data.json") == digest_of(file)
    assert cli("import", tmp_path / "got" / "data.json", "--run", tmp_path / "again").code == 0


def test_red_data_stays_here_without_the_flag(
    written: dict[bool, Path], cli: InProcess, tmp_path: Path, hub: Hub
) -> None:
    file = exported(written, tmp_path, red=True)
    refused = cli("hub", "push", file, "me/data")
    assert (refused.code, hub.requests) == (2, [])
    assert "holds red conversations, as its card says; --include-red lets them leave" in refused.error_line
    assert cli("hub", "push", file, "me/data", "--include-red").code == 0
    repo = hub.repos["dataset", "me/data"]
    assert repo.private
    assert "not-for-all-audiences" in repo.commits[repo.head]["README.md"].decode()


def test_a_public_repository_is_written_to_with_the_flag_alone(
    written: dict[bool, Path], cli: InProcess, tmp_path: Path, hub: Hub
) -> None:
    file = exported(written, tmp_path)
    before = hub.repo("dataset", "me/data", {"README.md": b"mine"}, private=False)
    refused = cli("hub", "push", file, "me/data")
    assert refused.code == 2
    assert "me/data is public: --public says" in refused.error_line
    assert hub.repos["dataset", "me/data"].head == before
    assert cli("hub", "push", file, "me/data", "--public").code == 0
    assert cli("hub", "push", file, "me/open", "--public").code == 0
    assert not hub.repos["dataset", "me/open"].private


def swapped(file: Path) -> None:
    file.write_text(file.read_text().replace("[]", "[ ]") + "\n")


def without_card(file: Path) -> None:
    file.with_name(file.name + ".card.json").unlink()


def another_card(file: Path) -> None:
    file.with_name(file.name + ".card.json").write_text("{}")


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (swapped, "is not the file that data.json.card.json describes; export it again"),
        (without_card, "has no data card beside it (data.json.card.json); `redinstruct export` writes both"),
        (another_card, "data.json.card.json is no data card of `redinstruct export`"),
    ],
)
def test_a_file_goes_with_the_card_that_is_its_own(
    written: dict[bool, Path], cli: InProcess, tmp_path: Path, hub: Hub, done: Any, said: str
) -> None:
    file = exported(written, tmp_path)
    done(file)
    refused = cli("hub", "push", file, "me/data")
    assert (refused.code, hub.requests) == (2, [])
    assert said in refused.error_line


@pytest.mark.parametrize("what", ["run", "nothing"])
def test_what_is_neither_a_checkpoint_nor_an_export_is_named(
    written: dict[bool, Path], cli: InProcess, tmp_path: Path, hub: Hub, what: str
) -> None:
    refused = cli("hub", "push", written[False].parent / what, "me/data")
    assert (refused.code, hub.requests) == (2, [])
    assert "push takes a checkpoint's folder, or a file that `redinstruct export` wrote" in refused.error_line


# ---- checkpoints ----


def test_a_checkpoint_goes_without_its_pickles_and_comes_back_pinned(cli: InProcess, tmp_path: Path, hub: Hub) -> None:
    folder = checkpoint(tmp_path / "safer")
    sent = cli("hub", "push", folder, "me/safer")
    assert sent.code == 0, sent.err
    assert "left here: optimizer.pt" in sent.err
    repo = hub.repos["model", "me/safer"]
    assert (repo.private, "optimizer.pt" in repo.commits[repo.head]) == (True, False)
    assert any(line.startswith("PUT /large/") for line in hub.requests)
    first = repo.head
    repo.add({"model.safetensors": b"other", "code.py": b"x", "w.bin": b"x"})
    got = cli("hub", "pull", f"hf/me/safer@{first}", "--out", tmp_path / "got", "--json")
    assert got.json["revision"] == first
    assert "pinned" not in got.err
    (folder / "optimizer.pt").unlink()
    assert tree(tmp_path / "got") == tree(folder)
    newest = cli("hub", "pull", "me/safer", "--out", tmp_path / "newest")
    assert f"pinned: the same bytes again by me/safer@{repo.head}" in " ".join(newest.err.split())
    assert "left there: code.py, w.bin" in newest.err
    assert (tmp_path / "newest" / "model.safetensors").read_bytes() == b"other"


def test_a_model_id_takes_a_revision(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    from redinstruct.errors import ModelSpecError
    from redinstruct.models.transformers import located

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = {"config.json": b"{}", "model.safetensors": b"one"}
    first = hub.repo("model", "me/safer", files)
    hub.repos["model", "me/safer"].add({"model.safetensors": b"two"})
    for source, expected in ((f"me/safer@{first}", b"one"), ("me/safer", b"two")):
        folder, shown = located(source)
        assert ((folder / "model.safetensors").read_bytes(), shown) == (expected, "hf/safer")
    with pytest.raises(ModelSpecError, match="no revision v9 there"):
        located("me/safer@v9")
    hub.gated.add("me/shut")
    with pytest.raises(ModelSpecError, match=r"me/shut is gated: accept its terms at .*/me/shut, set HF_TOKEN"):
        located("me/shut")


# ---- what goes wrong ----


def test_a_gated_repository_is_one_line(cli: InProcess, tmp_path: Path, hub: Hub) -> None:
    hub.gated.add("me/bank")
    told = cli("hub", "pull", "me/bank", "--kind", "dataset", "--out", tmp_path / "got")
    assert (told.code, told.out, (tmp_path / "got").exists()) == (2, "", False)
    page = f"{hub.address}/datasets/me/bank"
    assert f"me/bank is gated: accept its terms at {page}, set HF_TOKEN to a token of that account" in told.error_line


@pytest.mark.parametrize(
    ("name", "status", "code", "said"),
    [
        ("me/none", None, 2, "me/none: the hub has no dataset repository of that name"),
        ("me/data@v9", None, 2, "me/data: no revision v9 there"),
        ("me/data", 500, 1, "answered 500 for me/data"),
        ("me/code", None, 2, "me/code: holds no file that is fetched"),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_nothing_is_left(
    cli: InProcess, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, status: int | None, code: int,
    said: str,
) -> None:  # fmt: skip
    hub.repo("dataset", "me/data", {"a.json": b"[]"})
    hub.repo("dataset", "me/code", {"a.py": b"", "README.md": b"", "../up.json": b"", "/etc/x.json": b""})
    hub.fail = status
    told = cli("hub", "pull", name, "--kind", "dataset", "--out", tmp_path / "got")
    assert (told.code, said in told.err, told.err.count("\n"), TOKEN in told.err) == (code, True, 1, False), told.err
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_wrong_token_and_a_hub_that_is_not_there(
    cli: InProcess, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "safer")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    told = cli("hub", "push", folder, "me/safer")
    assert told.code == 2
    assert "set HF_TOKEN to a token that may write there" in told.error_line
    assert "somebody_else" not in told.err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    told = cli("hub", "push", folder, "me/safer")
    assert (told.code, "127.0.0.1:9 does not answer" in told.err) == (1, True), told.err


def test_a_place_that_is_taken_is_not_written_over(cli: InProcess, tmp_path: Path, hub: Hub) -> None:
    hub.repo("model", "me/safer", {"config.json": b"{}"})
    (tmp_path / "got").mkdir()
    told = cli("hub", "pull", "me/safer", "--out", tmp_path / "got")
    assert (told.code, hub.requests) == (2, [])


def test_data_that_was_exported_into_a_checkpoint_s_folder_stays_here(
    written: dict[bool, Path], tmp_path: Path
) -> None:
    """Red conversations went with the weights, and nobody was asked."""
    folder = checkpoint(tmp_path / "safer")
    alone = pack(folder)
    exported(written, folder, red=True)
    parcel = pack(folder)
    assert parcel.files == alone.files
    assert set(parcel.left) == {*alone.left, "data.json", "data.json.card.json", "data.json.card.md"}


def test_a_parcel_of_a_checkpoint_without_a_card(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "safer")
    (folder / "README.md").unlink()
    with pytest.raises(UsageError, match=r"has no card \(README.md\)"):
        pack(folder)


@pytest.mark.parametrize("verb", [("banks", "fetch"), ("banks", "show")])
def test_a_gated_bank_is_one_line(cli: InProcess, verb: tuple[str, str]) -> None:
    told = cli(*verb, "sorry-bench")
    assert told.code == 2
    assert "sorry-bench is gated: accept its terms at https://huggingface.co/datasets/sorry-bench/" in told.error_line
    assert (
        "`redinstruct hub pull sorry-bench/sorry-bench-202503 --kind dataset --file question.jsonl" in told.error_line
    )


def test_a_hub_that_is_switched_off_is_said(hub: Hub, cli: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = cli("hub", "pull", "me/data", "--out", "out")
    assert (result.code, "HF_HUB_OFFLINE is set" in result.err) == (2, True)
