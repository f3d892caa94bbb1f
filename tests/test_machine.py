"""The secret of this machine: made once, its owner's alone, and in no run folder; nonces come from it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from redinstruct.engine import Limits
from redinstruct.errors import UsageError
from redinstruct.judges import Case, bound_judge
from redinstruct.judges.blocks import make_nonce
from redinstruct.judges.rubric import RubricJudge
from redinstruct.machine import machine_secret, state_dir
from redinstruct.models import Reply, Request
from redinstruct.models.scripted import ScriptedModel
from redinstruct.redeval import RejudgeSettings, rejudge
from redinstruct.run import Store
from redinstruct.types import ATTACK_SUCCESS
from tests.support.cli import ROOT
from tests.support.stores import Setup, text
from tests.support.tally import finding

KEY = b"k" * 32


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDINSTRUCT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


class TestTheSecret:
    def test_is_made_once_and_its_owners_alone_under_any_umask(self, state: Path) -> None:
        before = os.umask(0)
        try:
            found = machine_secret()
        finally:
            os.umask(before)
        assert (len(found), machine_secret()) == (32, found)
        assert stat.S_IMODE((state / "secret").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert [p.name for p in state.iterdir()] == ["secret"]

    def test_is_one_for_all_that_begin_at_once(self, state: Path) -> None:
        code = "from redinstruct.machine import machine_secret; print(machine_secret().hex())"
        started = [
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        assert {process.communicate()[0].strip() for process in started} == {(state / "secret").read_bytes().hex()}

    @pytest.mark.parametrize("kind", ["short", "long", "empty", "readable by others", "a link", "a pipe", "a folder"])
    def test_that_is_none_is_refused_and_left_alone(self, state: Path, kind: str) -> None:
        state.mkdir()
        path = state / "secret"
        if kind == "a link":
            (state / "mine").write_bytes(b"x" * 32)
            path.symlink_to("mine")
        elif kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a folder":
            path.mkdir()
        else:
            path.write_bytes(b"x" * {"short": 31, "long": 33, "empty": 0}.get(kind, 32))
            path.chmod(0o644 if kind == "readable by others" else 0o600)
        before = path.lstat()
        with pytest.raises(UsageError, match="remove it, a new one is made") as caught:
            machine_secret()
        assert "\n" not in str(caught.value)
        assert path.lstat().st_mtime_ns == before.st_mtime_ns

    def test_is_one_of_the_process_where_none_can_be_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REDINSTRUCT_STATE", "/dev/null/state")
        assert machine_secret() == machine_secret()
        assert len(machine_secret()) == 32

    def test_stands_in_the_users_state_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("REDINSTRUCT_STATE")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        assert state_dir() == tmp_path / ".local" / "state" / "redinstruct"
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "x"))
        assert state_dir() == tmp_path / "x" / "redinstruct"


class TestNonces:
    def test_of_equal_cases_are_equal_and_every_part_counts(self) -> None:
        judge = RubricJudge("m", ATTACK_SUCCESS, b"s")
        case = Case("question", "answer", KEY)
        assert judge.nonce(case) == judge.nonce(Case("question", "answer", KEY))
        others = [Case("question", "other", KEY), Case("other", "answer", KEY), Case("question", "answer", b"o" * 32),
                  Case("questionanswer", "", KEY), Case("", "questionanswer", KEY)]  # fmt: skip
        nonces = {judge.nonce(case), judge.bound_to(b"t").nonce(case), *map(judge.nonce, others)}
        assert len(nonces) == 7

    @finding(4)
    def test_can_not_be_told_from_the_run_folder(self, tmp_path: Path, state: Path) -> None:
        setup = Setup()
        run = tmp_path / "run"
        with Store.open_for_writing(run) as store:
            setup.plan(store)
            store.commit_completions([(row, 0, text("blue")) for row in range(1, 9)])
            secret = store.secret()
            keys = [(owed.attempt.key, owed.attempt.question.text) for owed in store.owed(1)]
        seen: list[Request] = []

        def answer(request: Request) -> Reply:
            seen.append(request)
            return Reply("x", "stop", 1, 1)

        rejudge(run, RejudgeSettings(judge="rubric", judge_model=ScriptedModel(answer, name="j")), Limits(force=True))
        stored = b"".join(p.read_bytes() for p in run.iterdir())
        told = {make_nonce(s, key, use, *parts) for s in (secret, stored[:32]) for key, question in keys
                for use in ("rubric", "judge", "guard") for parts in ((), (question, "blue"))}  # fmt: skip
        sent = "".join(message.content for request in seen for message in request.messages)
        assert not [nonce for nonce in told if nonce in sent]
        assert machine_secret() not in stored
        ours = {make_nonce(machine_secret(), key, "rubric", question, "blue") for key, question in keys}
        assert all(nonce in sent for nonce in ours)

    @finding(4)
    def test_are_others_on_another_machine_and_the_run_goes_on(
        self, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = Case("q", "a", KEY)
        judge = RubricJudge("m", ATTACK_SUCCESS)
        here = bound_judge(judge)
        monkeypatch.setenv("REDINSTRUCT_STATE", str(tmp_path / "elsewhere"))
        there = bound_judge(judge)
        assert isinstance(here, RubricJudge)
        assert isinstance(there, RubricJudge)
        assert here.nonce(case) != there.nonce(case)
        assert here.card == there.card
