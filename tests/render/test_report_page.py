"""The report's page: what it says, what it hides, and that nothing a stranger wrote is more than text."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from redinstruct.figures.comparison import compare
from redinstruct.render import page as page_module
from redinstruct.render.overview import MOST_ATTEMPTS, Project, read_runs
from redinstruct.render.page import MOST_CHARACTERS, MOST_TOPICS, MOST_WORDINGS, html_page, render
from redinstruct.run import Store
from redinstruct.safetext import short_hash
from redinstruct.types import Completion, JudgeCard, Sampling, Verdict
from tests.support.cli import InProcess
from tests.support.pages import Page, full_project, full_run, replaced, strings_of
from tests.support.stores import CARD, Setup, fill, make_bank, report, scratch, text

P, N = "harmful", "unharmful"
VOID = {"meta", "declaration", "input"}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with scratch() as folder:
        yield full_project(folder)


def run_of(folder: Path, labels: list[str], setup: Setup | None = None) -> Path:
    setup = setup or Setup(banks=(make_bank(len(labels)),), templates=Setup().templates[:1])
    with Store.open_for_writing(folder) as store:
        fill(store, setup.plan(store), labels)
    return folder


# ---- what it is made of -------------------------------------------------------------------------------------------


def test_one_file_that_asks_for_nothing(project: Project) -> None:
    page = render(project, show_content=True)
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "form", "base", "audio", "video", "image", "use"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in {"src", "srcset", "style", "action", "formaction", "xlink:href"}, (tag, name)
            if name == "href":
                assert value is not None
                assert value.startswith("#"), value
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_allows_its_own_style_and_script_and_nothing_else(project: Project) -> None:
    page = render(project)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules["default-src"] == rules["img-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    # The policy stands before all that it governs.
    assert page.index("Content-Security-Policy") < page.index("<title>") < page.index("<style>")


def test_landmarks_headings_scopes_and_names(project: Project) -> None:
    parsed = Page(render(project, show_content=True))
    tags = [tag for tag, _ in parsed.tags]
    assert [tags.count(tag) for tag in ("main", "header", "footer", "nav", "h1")] == [1] * 5
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels)), levels
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.tags:
        if tag == "th":
            assert attributes.get("scope") in {"col", "row", "rowgroup"}
        if tag == "svg" and "class" in attributes:
            assert attributes["role"] == "img"
        if attributes.get("role") == "region":
            assert attributes["aria-label"]
            assert attributes["tabindex"] == "0"
        for reference in ("aria-labelledby", "href"):
            if reference in attributes:
                assert str(attributes[reference]).removeprefix("#") in ids
    plots = sum(tag == "svg" and "class" in attributes for tag, attributes in parsed.tags)
    assert tags.count("title") == 1 + plots, "every picture has a title"


def test_every_tag_is_closed_in_its_turn(project: Project) -> None:
    opened: list[str] = []
    for name, *_ in Page(render(project, show_content=True)).shape:
        if name.startswith("/"):
            assert opened.pop() == name[1:]
        elif name not in VOID:
            opened.append(name)
    assert opened == []


# ---- strangers' words ---------------------------------------------------------------------------------------------

PIECES = [
    "<script>", "</script>", "<img src=x onerror=alert(1)>", "</title>", "</style>", "<!--", "-->", "<![CDATA[", "]]>",
    '"', "'", "`", "=", " onload=alert(1) ", ">", "<", "&", "&lt;", "&#60;script&#62;", "</td></tr></table>", "<svg/>",
    "</svg>", "</bdi>", "</pre>", "</details>", "{{ 7*7 }}", "{% raw %}", "{#", "#}", "javascript:alert(1)", "\x00",
    "\r\n", "\n", "\t", "\u2028", "\u202e", "\ud800", "\ufeff", "\U000e0041", "<?php", "<%", "\\", "style=x",
    "@import", "url(x)", "<base href=//h>", "<meta http-equiv=refresh>", "</main>",
    "<input autofocus onfocus=alert(1)>", "x", "é", "你",
]  # fmt: skip


def hostile(project: Project, dice: random.Random) -> Project:
    """Every string replaced by a hostile one of its own."""
    numbers = {text: number for number, text in enumerate(strings_of(project))}

    def new(text: str) -> str:
        own = random.Random(f"{seed}:{text}")
        parts = own.choices(PIECES, k=own.randrange(1, 6)) + [chr(own.randrange(0x110000)) for _ in range(2)]
        own.shuffle(parts)
        number = str(numbers[text])  # so that two texts stay two
        return "".join([*parts, number]) if own.random() < 0.5 else "".join([number, *parts])

    seed = dice.random()
    return replaced(project, new)


def inert(project: Project) -> Project:
    numbers = {text: number for number, text in enumerate(strings_of(project))}
    return replaced(project, lambda text: f"x{numbers[text]}")


def shapes(project: Project, pages: int, seed: int) -> int:
    """Compare the tags of hostile pages with those of an inert one; returns how many values were shown."""
    expected, dice = Page(render(inert(project), show_content=True)).shape, random.Random(seed)
    for _ in range(pages):
        assert Page(render(hostile(project, dice), show_content=True)).shape == expected
    return pages * len(strings_of(project))


def test_no_text_adds_a_tag_or_an_attribute(project: Project) -> None:
    assert shapes(project, 5, seed=1) > 500


@pytest.mark.slow
def test_ten_thousand_values_add_no_tag_and_no_attribute(project: Project) -> None:
    assert shapes(project, 100, seed=2) >= 10_000


MUTANTS = {
    "a name marked safe": ("macros.html", "<bdi>{{ text }}</bdi>{% end", "<bdi>{{ text|safe }}</bdi>{% end"),
    "an answer marked safe": ("attempts.html", "{{ words|block }}", "{{ words|safe }}"),
    "an endpoint's words marked safe": ("report.html", "{{ name(failure.words) }}", "{{ failure.words|safe }}"),
    "a headline marked safe": ("report.html", "{{ block.verdict.headline }}", "{{ block.verdict.headline|safe }}"),
    "an attribute without quotes": ("attempts.html", "<summary>{% if", "<summary title={{ run.config.model }}>{% if"),
    "escaping switched off": ("report.html", "<title>{{ title }}</title>",
                              "{% autoescape false %}<title>{{ title }}</title>{% endautoescape %}"),
    "data in the script": ("report.html", "<script>{{ script }}",
                           "<script>let m = '{{ runs[0].config.model|safe }}';{{ script }}"),
}  # fmt: skip


FIRST, *OTHERS = MUTANTS


@pytest.mark.parametrize("mutant", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_planted_hole_is_noticed(project: Project, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, old, new = MUTANTS[mutant]
    original = page_module._asset.__wrapped__
    assert old in original(name)

    def asset(wanted: str) -> str:
        found: str = original(wanted)
        return found.replace(old, new) if wanted == name else found

    monkeypatch.setattr(page_module, "_asset", asset)
    page_module._environment.cache_clear()
    try:
        with pytest.raises(AssertionError):
            shapes(project, 10, seed=3)
    finally:
        page_module._environment.cache_clear()


def test_invisible_and_reordering_characters_are_shown(tmp_path: Path) -> None:
    words = "left\u202eright\u200b\x1b[31m\ud800\U000e0041"
    setup = Setup(banks=(make_bank(2, name=words, topics=(words,)),), templates=Setup().templates[:1], model=words)
    page = html_page([run_of(tmp_path / "run", [P, N], setup)], show_content=True)
    page.encode()
    for character in words:
        if not character.isprintable():
            assert character not in page.replace("\n", "")
    for shown in (r"\u202e", r"\u200b", r"\x1b", r"\ud800", r"\U000e0041"):
        assert shown in page


# ---- what it hides ------------------------------------------------------------------------------------------------


def test_a_thousand_contents_are_hidden_unless_asked_for(tmp_path: Path) -> None:
    size = 500
    setup = Setup(banks=(make_bank(size),), templates=Setup().templates[:1])
    bank = msgspec.structs.replace(
        setup.banks[0],
        questions=tuple(msgspec.structs.replace(q, text=f"canary q{q.row}q") for q in setup.banks[0].questions),
    )
    setup = msgspec.structs.replace(setup, banks=(bank,))
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = setup.plan(store)
        store.commit_completions([(row, 0, text(f"canary a{row}a")) for row in range(1, size + 1)])
        store.commit_verdicts([(row, 0, judge, 0, Verdict(P, raw=f"canary r{row}r")) for row in range(1, size + 1)])
    hidden = html_page([tmp_path / "run"])
    assert "canary" not in hidden
    assert short_hash("canary a7a")[:8] in hidden
    shown = html_page([tmp_path / "run"], show_content=True)
    assert "This file holds questions and answers in full" in shown
    assert len(set(re.findall(r"canary [qar]\d+[qar]", shown))) == 3 * size


def test_a_text_longer_than_a_page_can_bear_is_cut_and_says_so(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = Setup().plan(store)
        store.commit_completions([(1, 0, text("y" * (MOST_CHARACTERS + 1234)))])
        store.commit_verdicts([(1, 0, judge, 0, Verdict(P))])
    page = html_page([tmp_path / "run"], show_content=True)
    assert "[1,234 more characters]" in page
    assert page.count("y" * MOST_CHARACTERS) == 1


# ---- what it says -------------------------------------------------------------------------------------------------


def said(page: str) -> str:
    """The page's text on one line, with plain spaces."""
    return " ".join(Page(page).text.split())


def test_the_verdict_comes_first_in_words_with_its_doubts(tmp_path: Path) -> None:
    words = said(html_page([run_of(tmp_path / "run", [P] * 6 + [N] * 12 + ["unparsable"] * 2)]))
    judged = report([tmp_path / "run"])["results"][0]["rate"]["judged"]
    low, high = (f"{100 * end:.1f}" for end in judged["ci"])
    headline = "openai/m gave in to 33.3 % of the attacks with the standard prompt."
    assert headline in words
    assert f"lies between {low} and {high} % (95 % interval); 18 judged answers on bank bank" in words
    for doubt in ("uncorrected", "provisional Only 90.0 %", "not parity", "baseline judge",
                  "is between 30.0 and 40.0 %"):  # fmt: skip
        assert doubt in words
    assert words.index(headline) < words.index("Rates by prompt")


def test_nothing_is_claimed_of_what_was_not_judged(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        Setup().plan(store)
    words = said(html_page([tmp_path / "run"]))
    assert "Nothing can be said of openai/m yet: no answer was judged." in words
    assert "0 of 8 attempts are recorded" in words


def test_the_worst_prompt_makes_the_headline(tmp_path: Path) -> None:
    setup = Setup(banks=(make_bank(4),))
    words = said(html_page([run_of(tmp_path / "run", [N] * 4 + [P, P, P, N], setup)]))
    assert "gave in to 75.0 % of the attacks with the cou prompt." in words
    assert "Otherwise: standard 0.0 %." in words


def test_over_refusal_is_told_in_its_own_words_and_beside_the_attacks(tmp_path: Path) -> None:
    card = JudgeCard("refusal", "over_refusal")
    safe = Setup(banks=(make_bank(5, "safe"),), templates=Setup().templates[:1], card=card)
    refusals = run_of(tmp_path / "safe", ["refused", "complied", "complied", "complied", "complied"], safe)
    alone = said(html_page([refusals]))
    assert "openai/m refused 20.0 % of the harmless requests, asked with the standard prompt." in alone
    assert "Both sides" not in alone
    both = said(html_page([run_of(tmp_path / "attacks", [P, N]), refusals]))
    assert "Both sides" in both
    assert "Before and after" not in both, "runs of two measures are no before and after"


def test_before_and_after_are_compared_question_by_question(tmp_path: Path) -> None:
    setup = Setup(banks=(make_bank(40),), templates=Setup().templates[:1])
    before = run_of(tmp_path / "a", [P] * 30 + [N] * 8 + ["error"] * 2, setup)
    after = run_of(
        tmp_path / "b", [P] * 4 + [N] * 27 + [P] * 7 + [N] * 2, msgspec.structs.replace(setup, model="openai/n")
    )
    project = read_runs([before, after])
    assert project.changes is not None
    (change,) = project.changes
    assert project.changes == compare(before, after).results
    assert change.before is not None
    assert change.difference is not None
    pairs = list(zip([True] * 30 + [False] * 8, [True] * 4 + [False] * 27 + [True] * 7, strict=True))
    assert (change.before.positive, change.difference.gained) == (30, pairs.count((False, True)))
    words = said(render(project))
    assert "With the standard prompt, harmful answers fell from 78.9 to 28.9 %." in words
    assert "on 38 pairs of answers to 38 questions in 2 topics of bank bank; the judge's own labels, unc" in words
    assert "38 of 40" in words


def test_a_difference_that_chance_could_make_is_no_change(tmp_path: Path) -> None:
    setup = Setup(banks=(make_bank(6),), templates=Setup().templates[:1])
    runs = [run_of(tmp_path / "a", [P, P, P, N, N, N], setup), run_of(tmp_path / "b", [P, P, N, N, N, N], setup)]
    assert "went from 50.0 to 33.3 %: no difference shown." in said(html_page(runs))


def test_runs_with_nothing_in_common_are_not_compared(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / name, [P, N], Setup(banks=(make_bank(2, name),), templates=Setup().templates[:1]))
        for name in ("one", "other")
    ]
    words = said(html_page(runs))
    assert "asked different banks: nothing can be set side by side" in words
    assert str(tmp_path) not in words
    assert "Before and after" not in said(html_page([*runs, runs[0]]))


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    setup = Setup(banks=(make_bank(2),), templates=Setup().templates[:1])
    hotter = msgspec.structs.replace(setup, sampling=Sampling(temperature=1.0))
    words = said(html_page([run_of(tmp_path / "a", [P, N], setup), run_of(tmp_path / "b", [P, N], hotter)]))
    assert "not comparable" in words
    assert "other sampling (temperature unset before, 1.0 after)" in words


def test_at_most_a_thousand_attempts_the_harmful_first(tmp_path: Path) -> None:
    setup = Setup(banks=(make_bank(1100),), templates=Setup().templates[:1])
    labels = [[P, N, "unparsable", N][row % 4] for row in range(1100)]
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = setup.plan(store)
        store.commit_completions([(row, 0, text()) for row in range(1, 1101)])
        store.commit_verdicts([(row, 0, judge, 0, Verdict(label)) for row, label in enumerate(labels, 1)])
    listing = read_runs([tmp_path / "run"]).runs[0].listing
    assert listing is not None
    found = [view.label for view in listing.views]
    assert found == [P] * 275 + ["unparsable"] * 275 + [N] * 450
    assert (len(found), listing.left_out) == (MOST_ATTEMPTS, 100)
    assert [v.question.row for v in listing.views[:3]] == [0, 4, 8]
    page = html_page([tmp_path / "run"])
    assert "1,000 listed" in page
    assert "100 left out" in page
    assert page.count('<td class="label">') == 1000
    assert "Of 1,100 attempts" in page


def test_no_more_topics_than_a_plot_can_bear(tmp_path: Path) -> None:
    topics = [f"topic {i}" for i in range(MOST_TOPICS + 5)]
    setup = Setup(banks=(make_bank(MOST_TOPICS + 6, topics=topics),), templates=Setup().templates[:1])
    words = said(html_page([run_of(tmp_path / "run", [P], setup)]))
    assert "5 more are in the JSON and CSV reports" in words
    assert "topic 0 " in words


def test_failures_are_shown_by_reason_and_details_apart(project: Project) -> None:
    words = said(render(project))
    for part in ("garbled", "partial", "judge refused", "no response"):
        assert part in words
    for result in project.results:
        assert result.reasons
        assert "; ".join(f"{reason} {count}" for reason, count in result.reasons.items()) in words
    assert "both judges together" in words


def test_what_failed_stands_there_in_the_endpoints_own_words_counted(tmp_path: Path, project: Project) -> None:
    words = said(render(project))
    for result in project.results:
        for failure in result.failures:
            if failure.words:
                label = failure.label.replace("_", " ")
                assert f"{label}{failure.reason}{failure.count}{failure.words}" in words, "cell by cell"
    assert "the judge's endpoint says" in words
    plain = said(html_page([run_of(tmp_path / "run", [P, N, "unparsable"])]))
    assert "own words" not in plain, "nobody said anything"


def test_of_a_thousand_tellings_the_page_lists_the_most_frequent_and_counts_the_rest(tmp_path: Path) -> None:
    def letters(row: int) -> str:
        return "".join(chr(ord("a") + int(digit)) for digit in str(row))

    setup = Setup(banks=(make_bank(100),), templates=Setup().templates[:1])
    with Store.open_for_writing(tmp_path / "run") as store:
        setup.plan(store)
        failed = [
            (row, 0, Completion("error", reason="bad_request", note=f"no {letters(row)}")) for row in range(1, 99)
        ]
        often = [(row, 0, Completion("error", reason="timeout", note="often")) for row in (99, 100)]
        store.commit_completions([*failed, *often])
    words = said(html_page([tmp_path / "run"]))
    assert "timeout2often" in words
    assert words.count("bad_request1no ") == MOST_WORDINGS - 1
    assert f"{99 - MOST_WORDINGS} more are in the JSON report" in words


def test_the_judges_card_shows_selftest_and_people(project: Project) -> None:
    words = said(render(project))
    assert "unfit judge" in words
    assert (
        "balanced accuracy 0.95 (sensitivity 0.90, specificity 1.00) on 20 inert cases; 2 of 3 repeats equal" in words
    )
    assert "echo 9/10, quoted 10/10" in words
    assert "Confusion matrix" in words
    assert "post-stratified jeffreys; the judge alone said" in words
    assert "they agree on 100.0 %" in words


def test_a_page_has_no_clock_no_path_and_the_same_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = set()
    for number in range(3):
        monkeypatch.setattr(time, "time", lambda: 1e9)
        run = full_run(tmp_path / f"whereabouts {number}", "openai/m")
        monkeypatch.setattr(time, "time", lambda now=number: 1e9 * (now + 2))
        pages.add(html_page([run], show_content=True))
    (page,) = pages
    assert "whereabouts" not in page
    assert str(tmp_path) not in page


def test_the_command_on_the_page_makes_the_same_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bank = tmp_path / "my questions"
    bank.write_text('["Inert one?", "Inert two?"]')
    asked = [
        "eval", "--model", "scripted/weak", "--bank", bank, "--prompt", "cou", "--prompt", "standard", "--judge",
        "refusal", "--measure", "over_refusal", "--limit", "1", "--epochs", "2", "--dedupe", "--max-tokens", "77",
        "--temperature", "0.5", "--top-p", "0.9", "--seed", "-3", "--chat-template", "none", "--run", "first",
    ]  # fmt: skip
    command = InProcess(capsys)
    assert command(*asked).code == 0
    (run,) = read_runs([tmp_path / "first"]).runs
    program, *again = shlex.split(run.command.replace("\\\n", ""))
    assert program == "redinstruct"
    assert command(*["second" if word == "RUN" else word for word in again]).code == 0
    (other,) = read_runs([tmp_path / "second"]).runs
    assert other.config == run.config


def test_no_name_can_forge_a_line_of_the_command(tmp_path: Path) -> None:
    name = "m' \\\n  --judge x\n; touch forged"
    (run,) = read_runs([run_of(tmp_path / "run", [P, N], msgspec.structs.replace(Setup(), model=name))]).runs
    lines = run.command.split("\n")
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert [line.split()[0] for line in lines] == [
        "redinstruct", "--model", "--bank", "--prompt", "--prompt", "--judge", "--run",
    ]  # fmt: skip
    assert shlex.split(lines[1].removesuffix("\\"))[1] == name.replace("\n", "\\n")


def test_cost_counts_calls_and_tokens_and_what_was_not_told(tmp_path: Path) -> None:
    setup = Setup(templates=Setup().templates[:1], card=CARD)
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = setup.plan(store)
        told = Completion("text", "a", "a", tokens_in=1000, tokens_out=234, tries=3)
        store.commit_completions([(1, 0, told), (2, 0, text()), (3, 0, Completion("error", reason="timeout", tries=6))])
        store.commit_verdicts([(1, 0, judge, 0, Verdict(P, tries=2, tokens_in=50, tokens_out=7))])
    target, judging = read_runs([tmp_path / "run"]).runs[0].roles
    assert msgspec.structs.astuple(target.spent) == (10, 3, 1000, 234, 1)
    assert msgspec.structs.astuple(judging.spent) == (2, 1, 50, 7, 0)
