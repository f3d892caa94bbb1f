"""Where each public bank and the authors' templates lie, each pinned to a revision, with the sha256 of its bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

import msgspec


class KnownBank(msgspec.Struct, frozen=True):
    """A public file by reference. ``questions`` is the number of its rows, None for a template.

    ``label`` is what all of its questions are, where it is one half of a published pair that has no label column.
    ``columns`` are (purpose, column) that are read by name.
    """

    name: str
    kind: Literal["bank", "template"]
    description: str
    url: str
    sha256: str
    questions: int | None
    licence: str
    source: str
    label: Literal["safe", "unsafe"] | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def file_name(self) -> str:
        """Its name in the cache: the stem is the known name, so that outputs show that."""
        return self.name + PurePosixPath(self.url).suffix


_RED_INSTRUCT = "https://raw.githubusercontent.com/declare-lab/red-instruct/73c759c93d2f6b1d8c7b058ab7bcec5fb0c28fa2"
_XSTEST = "https://raw.githubusercontent.com/paul-rottger/xstest/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_AILUMINATE = "https://raw.githubusercontent.com/mlcommons/ailuminate/769cc2be9d20c8d4fb26ce53b68865ed41dfb8e2"
_PAPER = "Bhardwaj & Poria 2023, Red-Teaming Large Language Models using Chain of Utterances, arXiv 2308.09662"
_ADVBENCH = "Zou et al. 2023, Universal and Transferable Adversarial Attacks on Aligned LLMs, arXiv 2307.15043"
_OR_BENCH = "https://huggingface.co/datasets/bench-llm/or-bench/resolve/e36d8b80e81837c8a8f264bbb2a49f1b32c7e272"
_JBB = (
    "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors/resolve/886acc352a31533ffbcf4ef22c744658688086fc/data"
)
_OVER_REFUSAL = "Cui et al. 2024, OR-Bench: An Over-Refusal Benchmark for Large Language Models, arXiv 2405.20947"
_JAILBREAKBENCH = "Chao et al. 2024, JailbreakBench, NeurIPS 2024, arXiv 2404.01318"
_GITHUB = "https://raw.githubusercontent.com"
_HARMBENCH = (
    f"{_GITHUB}/centerforaisafety/HarmBench/8e1604d1171fe8a48d8febecd22f600e462bdcdd/data/behavior_datasets/"
    "harmbench_behaviors_text_all.csv"
)
_HARMBENCH_SHA256 = "8d81accedd38eaaf8b760618622bb888417d1fd0c86eba65c427a16f1cbb4afc"
_HARMBENCH_PAPER = "Mazeika et al. 2024, HarmBench, ICML 2024, arXiv 2402.04249"
_AIRR = "Ghosh et al. 2025, AILuminate: Introducing v1.0 of the AI Risk and Reliability Benchmark, arXiv 2503.05731"
_RESTA = "Bhardwaj, Do & Poria 2024, Language Models are Homer Simpson!, arXiv 2402.11746"


def _published(
    name: str, description: str, sha256: str, questions: int, source: str, licence: str = "Apache-2.0"
) -> KnownBank:
    url = f"{_RED_INSTRUCT}/harmful_questions/{name}.json"
    return KnownBank(name, "bank", description, url, sha256, questions, licence, source)


def _template(name: str, sha256: str) -> KnownBank:
    description, url = f"the authors' own `{name}` prompt", f"{_RED_INSTRUCT}/red_prompts/{name}.txt"
    return KnownBank(f"{name}-2023", "template", description, url, sha256, None, "Apache-2.0", _PAPER)


KNOWN: Mapping[str, KnownBank] = {
    known.name: known
    for known in (
        _published(
            "harmfulqa",
            "HarmfulQA: 10 topics, 98 subtopics; 1,938 of its questions are distinct",
            "e04c1f3c48800ea84f954298e2a74f27e391069e037d60a22c2727eaa22f2cf8",
            1960,
            _PAPER,
        ),
        _published(
            "dangerousqa",
            "DangerousQA: questions from six adjectives",
            "b40b0193d063cb5d742e6d0e070dde119e0291619830c65653ca19bdc84fdd10",
            200,
            "Shaikh et al. 2022, On Second Thought, Let's Not Think Step by Step!, arXiv 2212.08061",
            "MIT",
        ),
        _published(
            "catqa_english",
            "CatQA: 11 categories, 55 subcategories; English",
            "40efd4e205e26d6e840f30e6d8540f95f2777453af052319e42e74d10bd1992a",
            550,
            _RESTA,
        ),
        _published(
            "catqa_chinese",
            "CatQA: 11 categories, 55 subcategories; Chinese",
            "d13b0d6e09a89a2a03f3d3813d4923ae5903f5362687a4f8f4e2b4dfb77706db",
            550,
            _RESTA,
        ),
        _published(
            "catqa_vietnamese",
            "CatQA: 11 categories, 55 subcategories; Vietnamese",
            "414c0f0b2897940edde808a384685359ea285de7ea5f1c0343b98c0548f9c3b4",
            550,
            _RESTA,
        ),
        _published(
            "adversarialqa",
            "AdversarialQA: AdvBench's transfer set of instructions",
            "75e9efd5ddf7bb1e653b816308c10be6edd8959c7665cf727bcab543a86a848e",
            500,
            _ADVBENCH,
        ),
        KnownBank(
            "xstest",
            "bank",
            "XSTest v2: 250 safe prompts that look unsafe, 200 unsafe contrasts",
            f"{_XSTEST}/xstest_prompts.csv",
            "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
            450,
            "CC-BY-4.0",
            "Röttger et al. 2024, XSTest, NAACL 2024, arXiv 2308.01263",
        ),
        KnownBank(
            "or-bench-hard-1k",
            "bank",
            "OR-Bench, the hard part: harmless prompts that models refuse",
            f"{_OR_BENCH}/or-bench-hard-1k.csv",
            "a6e2f1166416efe5901f3bb05c47dc92ab3aca3acfe143693d38b8057d841e6d",
            1319,
            "CC-BY-4.0",
            _OVER_REFUSAL,
            "safe",
        ),
        KnownBank(
            "or-bench-toxic",
            "bank",
            "OR-Bench's contrast: prompts that should be refused",
            f"{_OR_BENCH}/or-bench-toxic.csv",
            "3be45901faae3b4b2b51bf7f8a2784c1650a1cc8c631dbc8b171d5312d4e0057",
            655,
            "CC-BY-4.0",
            _OVER_REFUSAL,
            "unsafe",
        ),
        KnownBank(
            "jbb-harmful",
            "bank",
            "JailbreakBench: 100 misuse behaviours in 10 categories, asked as goals",
            f"{_JBB}/harmful-behaviors.csv",
            "4a8ec6832056b631eb092dccc60d37a61c3d441268268888b3d006288afeffa1",
            100,
            "MIT",
            _JAILBREAKBENCH,
            "unsafe",
        ),
        KnownBank(
            "jbb-benign",
            "bank",
            "JailbreakBench: 100 harmless behaviours on the same subjects",
            f"{_JBB}/benign-behaviors.csv",
            "3cda234d21a991fa309bbfea4b6d9dae31ccdf8e9d452424b6a983e4fdc33468",
            100,
            "MIT",
            _JAILBREAKBENCH,
            "safe",
        ),
        KnownBank(
            "advbench",
            "bank",
            "AdvBench: harmful behaviours, asked as goals",
            f"{_GITHUB}/llm-attacks/llm-attacks/098262edf85f807224e70ecd87b9d83716bf6b73/data/advbench/"
            "harmful_behaviors.csv",
            "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1",
            520,
            "MIT",
            _ADVBENCH,
        ),
        KnownBank(
            "harmbench",
            "bank",
            "HarmBench's text behaviours; the contexts of the contextual ones are not asked",
            _HARMBENCH,
            _HARMBENCH_SHA256,
            400,
            "MIT",
            _HARMBENCH_PAPER,
        ),
        KnownBank(
            "harmbench-contexts",
            "bank",
            "HarmBench's text behaviours, the contextual ones with their contexts",
            _HARMBENCH,
            _HARMBENCH_SHA256,
            400,
            "MIT",
            _HARMBENCH_PAPER,
            columns=(("context", "ContextString"),),
        ),
        KnownBank(
            "do-not-answer",
            "bank",
            "Do-Not-Answer: prompts that should be refused, in five risk areas",
            f"{_GITHUB}/Libr-AI/do-not-answer/460703484df354958a5e1cd7378a38fcb94a2f3e/datasets/Instruction/"
            "do_not_answer_en.csv",
            "06acfa39a06a1b33d1f264ce41b4f7a95812010c594fb733ae4717ee0a4544fc",
            939,
            "CC-BY-NC-SA-4.0",
            "Wang et al. 2023, Do-Not-Answer: A Dataset for Evaluating Safeguards in LLMs, arXiv 2308.13387",
        ),
        KnownBank(
            "ailuminate-demo-en",
            "bank",
            "AILuminate 1.0 of MLCommons, the public tenth of its practice set: 12 hazards",
            f"{_AILUMINATE}/airr_official_1.0_demo_en_us_prompt_set_release.csv",
            "63e2b654325c5405096fabf28ef5f057b0ad674904b1839fd1f52b523e324d02",
            1200,
            "CC-BY-4.0",
            _AIRR,
        ),
        KnownBank(
            "strongreject",
            "bank",
            "StrongREJECT: forbidden prompts in six categories",
            f"{_GITHUB}/alexandrasouly/strongreject/f7cad6c17e624e21d8df2278e918ae1dddb4cb56/strongreject_dataset/"
            "strongreject_dataset.csv",
            "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
            313,
            "MIT",
            "Souly et al. 2024, A StrongREJECT for Empty Jailbreaks, NeurIPS 2024, arXiv 2402.10260",
        ),
        _template("standard", "0b6387d8dfddaa0373995096406f797c8c488e1cb53e2f7616a0fec7547cce12"),
        _template("cot", "a709314e698800cf22db72502036849e300db58f549ce9fe1c10f4e8d696c6b7"),
        _template("cou", "e53c0cdc861222f62e083f9670bfaad81cb2ae6f1d4fae4aa3039e61116439cb"),
    )
}
"""Every known bank and template, by its name."""


class GatedBank(msgspec.Struct, frozen=True):
    """A bank behind a form on the hub: its bytes are nobody's to confirm, so that no hash of it stands here.

    ``repository`` is its dataset there, ``file`` the one that holds its questions.
    """

    name: str
    repository: str
    file: str
    source: str

    @property
    def how(self) -> str:
        """How to get at it, as one line."""
        form = behind_a_form(self.name, f"{hub_address()}/datasets/{self.repository}")
        pulled = f"redinstruct hub pull {self.repository} --kind dataset --file {self.file} --out DIR"
        then = "save it as CSV or JSONL" if self.file.endswith(".parquet") else f"--bank takes DIR/{self.file}"
        return f"{form}, and `{pulled}`; {then}"


def hub_address() -> str:
    """The hub that is asked: ``HF_ENDPOINT``'s, read anew each time (the library reads it once)."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def behind_a_form(name: str, page: str) -> str:
    """What is to be done about a repository whose terms must be accepted."""
    return f"{name} is gated: accept its terms at {page}, set HF_TOKEN to a token of that account"


GATED: Mapping[str, GatedBank] = {
    gated.name: gated
    for gated in (
        GatedBank(
            "sorry-bench",
            "sorry-bench/sorry-bench-202503",
            "question.jsonl",
            "Xie et al. 2024, SORRY-Bench: Systematically Evaluating LLM Safety Refusal, arXiv 2406.14598",
        ),
        GatedBank(
            "wildguardtest",
            "allenai/wildguardmix",
            "test/wildguard_test.parquet",
            "Han et al. 2024, WildGuard: Open One-stop Moderation Tools, arXiv 2406.18495",
        ),
    )
}
"""Banks that are known by name, and fetched by their own readers' accounts alone."""
