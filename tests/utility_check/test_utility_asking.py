"""A model asked without the harness: an endpoint that fails is denied, or lost; it is never a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from redinstruct.engine import LimitReached, Limits, Prices, Spending
from redinstruct.errors import EndpointDenied, EndpointLost, RedInstructError, UsageError
from redinstruct.figures.scores import read_utility
from redinstruct.models import ModelError, Reply, Request, make_model
from redinstruct.models.base import TokenChoice
from redinstruct.models.placement import Placement, placed
from redinstruct.progress import Progress
from redinstruct.run import Store, UtilityStore
from redinstruct.types import FailureReason, Message, Sampling
from redinstruct.utility_check.asking import Asker
from redinstruct.utility_check.runs import UtilityOutcome, check_utility
from redinstruct.utility_check.settings import UtilitySettings
from redinstruct.utility_check.toy import Fact
from tests.support.cli import InProcess
from tests.support.echoing import EchoingEndpoint
from tests.support.endpoint import error
from tests.support.workers import Nearby, NearbyEngine

PRICES = Prices(1.0, 2.0)
REQUESTS = [Request((Message("user", f"What is item {number}?"),), Sampling(max_tokens=1)) for number in range(6)]


class Fails:
    """Answers so many requests, and then fails for that reason."""

    id = "openai-api/fake/m"
    batch_size = 1

    def __init__(self, after: int, reason: FailureReason) -> None:
        self.left, self._reason = after, reason

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        self.left -= 1
        if self.left < 0:
            raise ModelError(self._reason, note="as it said")
        return [Reply("x")]

    async def aclose(self) -> None:
        pass


def one_by_one(model: Fails, max_calls: int | None = None) -> Asker:
    return Asker(model, Limits(concurrency=1), None if max_calls is None else Spending(max_calls))


@pytest.mark.parametrize(("after", "error"), [(0, EndpointDenied), (3, EndpointLost)])
@pytest.mark.parametrize("reason", [FailureReason.UNAUTHORIZED, FailureReason.QUOTA])
def test_one_failing_call_ends_the_task_with_the_endpoint_s_words(
    after: int, error: type[RedInstructError], reason: FailureReason
) -> None:
    with pytest.raises(error, match="as it said"):
        one_by_one(Fails(after, reason)).say(REQUESTS)


def test_a_fault_of_what_was_asked_is_neither() -> None:
    with pytest.raises(RedInstructError, match="bad_request: as it said") as caught:
        one_by_one(Fails(3, FailureReason.BAD_REQUEST)).say(REQUESTS)
    assert caught.value.exit_code == 1


def test_an_endpoint_without_completions_says_why_it_gives_no_probabilities() -> None:
    assert one_by_one(Fails(0, FailureReason.NOT_FOUND)).why_no_probabilities() == "not_found: as it said"


AZURE = "The completion operation does not work with the specified model, gpt-4o. Please choose different model."


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (error(404, "This is a chat model and not supported in the v1/completions endpoint."), True),
        (error(405), True),
        (error(400, AZURE, code="OperationNotSupported"), True),
        (error(400, "This model's maximum context length is 4096 tokens."), False),
    ],
)
def test_an_endpoint_that_has_only_a_chat_is_told_from_one_that_refuses_what_was_asked(
    refusal: bytes, told: bool
) -> None:
    with EchoingEndpoint() as stub:
        stub.chat_only, stub.refusal = True, refusal
        asker = Asker(make_model("openai-api/stub/m", environ=stub.env()))
        request = Request((Message("user", "The sky is"),), Sampling(max_tokens=2), plain=True)
        if told:
            assert not asker.takes(request)
        else:
            with pytest.raises(RedInstructError, match="context length"):
                asker.takes(request)


def test_a_task_for_which_too_few_calls_are_left_is_not_begun() -> None:
    model = Fails(99, FailureReason.QUOTA)
    asker = one_by_one(model, max_calls=8)
    assert len(asker.say(REQUESTS)) == 6
    with pytest.raises(LimitReached):
        asker.say(REQUESTS)
    assert model.left == 93


def toy(
    run: Path, *tasks: str, model: str = "scripted/refuse", max_calls: int | None = None, budget: float | None = None
) -> UtilityOutcome:
    wanted = UtilitySettings(model=model, suite=",".join(tasks), limit=4)
    return check_utility(wanted, run, limits=Limits(max_calls=max_calls, budget=budget, prices=PRICES))


def test_a_check_that_a_limit_cut_keeps_its_tasks_and_goes_on_with_the_next(place: Path) -> None:
    tasks = ("toy_how_to", "toy_how_to_in_frame", "toy_borderline")
    begun = toy(place / "run", *tasks, max_calls=0)
    assert (begun.asked, begun.result.missing) == ((), tasks)
    cut = toy(place / "run", *tasks, max_calls=9)
    assert (cut.asked, cut.result.missing, cut.result.complete) == (tasks[:2], tasks[2:], False)
    toy(place / "run", *tasks)
    toy(place / "whole", *tasks)
    assert read_utility(place / "run") == read_utility(place / "whole")


def test_a_budget_is_the_whole_check_s_and_counts_what_failed_tasks_cost(place: Path) -> None:
    tasks = ("toy_how_to", "toy_borderline")
    toy(place / "measured", *tasks[:1])
    with Store.open_for_reading(place / "measured") as store:
        read, written = UtilityStore(store).tokens()
    cost = PRICES.cost(read, written)
    assert cost > 0
    # A task is begun where the most that it can cost is left: it costs much less than that.
    most = 30 * cost
    assert toy(place / "run", *tasks, budget=most).asked == tasks
    with Store.open_for_writing(place / "run") as store:
        UtilityStore(store).spend(30 * read, 30 * written)
    wanted = UtilitySettings(model="scripted/refuse", suite=",".join(tasks), limit=5)
    assert check_utility(wanted, place / "run", limits=Limits(budget=most, prices=PRICES)).asked == ()
    assert check_utility(wanted, place / "run", limits=Limits(budget=3 * most, prices=PRICES)).asked == tasks


def test_money_is_limited_by_the_command_too(place: Path, cli: InProcess) -> None:
    given = ("utility", "--model", "scripted/refuse", "--suite", "toy_how_to", "--limit", "4", "--run", place / "run")
    assert "--budget needs --price-in" in cli(*given, "--budget", "1").error_line
    assert "--price-in and --price-out belong together" in cli(*given, "--price-in", "1").error_line
    assert not (place / "run").exists()
    priced = (*given, "--price-in", "1", "--price-out", "1")
    cut = cli(*priced, "--budget", "0.0001")
    assert (cut.code, read_utility(place / "run").missing) == (11, ("toy_how_to",))
    assert "cut by --max-calls or --budget" in cut.err
    assert "compare" not in cut.err, "nothing was measured that could be held against anything"
    assert "no task is measured yet; owed: toy_how_to" in cut.out
    done = cli(*priced, "--budget", "1")
    assert done.code == 0
    assert "compare BEFORE" in done.err


def test_progress_tells_the_task_its_rows_and_the_requests(place: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    def hear(progress: Progress) -> None:
        heard.append((progress.stage, progress.done, progress.calls))

    wanted = UtilitySettings(model="scripted/refuse", suite="toy_how_to,toy_borderline", limit=3)
    check_utility(wanted, place / "run", hear)
    assert heard == [(task, done, done) for task in ("toy_how_to", "toy_borderline") for done in (1, 2, 3)]


class Computing:
    """A local model whose log-probability of an answer is its length, less the question's; it reads 40 characters."""

    id, batch_size, cut = "hf/computing@0123456789ab", 3, 0
    notes = ()

    def likelihoods(self, pairs: Sequence[tuple[str, str]], *, cut: bool = False) -> list[float]:
        assert len(pairs) <= self.batch_size
        assert cut
        self.cut += sum(len(question) > 40 for question, _ in pairs)
        return [len(answer) - len(question) / 1000 for question, answer in pairs]

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        return [Reply("I cannot say.") for _ in batch]

    async def aclose(self) -> None:
        pass


@pytest.fixture
def _computing(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("utility_check.runs", "engine.hosting"):
        monkeypatch.setattr(f"redinstruct.{where}.make_model", lambda *a, **k: Computing())
    monkeypatch.setattr("redinstruct.engine.servers.FIRST_PROBE", 0.001)
    monkeypatch.setattr("redinstruct.engine.servers.LONGEST_PROBE", 0.01)


PAIRS = [(f"{'How ' * (at % 13)}long is {at}?", "x" * at) for at in range(20)]


def test_log_probabilities_are_calls_in_batches_and_what_was_cut_is_counted() -> None:
    asker = Asker(Computing())
    assert asker.computes
    assert asker.likelihoods(PAIRS) == Computing().likelihoods(PAIRS[:3], cut=True) + [
        len(answer) - len(question) / 1000 for question, answer in PAIRS[3:]
    ]
    assert asker.tally.seen == len(PAIRS)
    assert asker.tally.cut == sum(len(question) > 40 for question, _ in PAIRS) > 0


class Echoing:
    """An endpoint with ``/completions``: each character is a token; a text costs one to read."""

    id, batch_size = "openai-api/fake/echoing", 1

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        text = batch[0].messages[0].content
        return [Reply("", tokens_in=1, tokens_out=0, choices=tuple(TokenChoice(c, ((c, -1.0),)) for c in text))]

    async def aclose(self) -> None:
        pass


def test_what_trying_an_endpoint_cost_is_what_the_run_cost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redinstruct.utility_check.runs.make_model", lambda *a, **k: Echoing())
    toy(place / "run", "toy_facts", model="openai-api/fake/echoing")
    with Store.open_for_reading(place / "run") as store:
        assert UtilityStore(store).tokens() == (1 + 4 * 4, 0)


@pytest.mark.usefixtures("_computing")
def test_a_task_s_card_tells_of_its_own_texts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [Fact("How " * 13 + f"long is {at}?", ("a", "b", "c", "d")) for at in range(2)]
    monkeypatch.setattr("redinstruct.utility_check.toy.facts", lambda folder: long)
    toy(place / "run", "toy_facts", "toy_how_to", model="hf/computing")
    cards = {card.task: card.notes for card in read_utility(place / "run").cards}
    assert cards["toy_facts"] == ("8 of 8 requests were longer than the model reads: their beginnings were cut",)
    assert not any("cut" in note for note in cards["toy_how_to"])


@pytest.mark.parametrize("deaths", [0, 3])
@pytest.mark.usefixtures("_computing")
def test_workers_compute_what_this_process_computes(place: Path, deaths: int) -> None:
    left = [deaths]

    def dies(wanted: object) -> bool:
        left[0] -= 1
        return left[0] >= 0

    tasks = ("toy_how_to", "toy_facts")
    engine = NearbyEngine(lambda _: Nearby(dies))
    with placed(Placement(elsewhere=engine)), pytest.MonkeyPatch.context() as patch:
        patch.setattr("redinstruct.utility_check.runs.make_model", make_model)
        toy(place / "there", *tasks, model="hf/computing")
    toy(place / "here", *tasks, model="hf/computing")
    assert read_utility(place / "there") == read_utility(place / "here")
    assert len(engine.links) == 2 + deaths


@pytest.mark.usefixtures("_computing")
def test_a_worker_tells_whether_its_model_computes_log_probabilities() -> None:
    assert Asker(NearbyEngine(lambda _: Nearby()).make("hf/computing", "{}", 1.0, "none")).computes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redinstruct.engine.hosting.make_model", make_model)
        assert not Asker(NearbyEngine(lambda _: Nearby()).make("scripted/weak", "{}", 1.0, "native")).computes


def test_a_model_without_log_probabilities_is_refused_wherever_it_answers(place: Path) -> None:
    for engine in (None, NearbyEngine(lambda _: Nearby())):
        with placed(Placement(elsewhere=engine)), pytest.raises(UsageError, match="its answer holds none"):
            toy(place / "run", "toy_facts", model="scripted/weak")
    assert not (place / "run").exists()
