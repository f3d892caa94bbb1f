"""Long lists of flags in groups, what is needed first standing first."""

from __future__ import annotations

import click

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Needed first", ("model", "teacher", "banks", "judge", "judge_model", "run")),
    ("What is asked", ("prompts", "measure", "limit", "epochs", "dedupe", "columns", "system", "protocol")),
    ("What is collected", ("answerer", "topics", "per_subtopic", "blue", "turn_by_turn", "red", "critique",
                           "until_covered")),
    ("How the model answers", ("max_tokens", "answer_tokens", "temperature", "top_p", "seed", "chat_template",
                               "model_options", "teacher_options", "answerer_options")),
    ("The judge", ("rubric", "policy", "judge_format", "guard_kind", "judge_options", "sample", "again", "force")),
    ("How fast, and how much", ("concurrency", "engine", "ray_address", "workers", "timeout", "patience",
                                "max_calls", "budget", "price_in", "price_out", "judge_price_in",
                                "judge_price_out", "stop_when_decided")),
    ("Models on this machine (hf/)", ("dtype", "device", "batch", "threads")),
    ("What failed before", ("keep_errors", "retry_errors")),
)  # fmt: skip
REST = "Other"


class Grouped(click.Command):
    """A command whose flags are listed by :data:`GROUPS`; one that stands in none comes last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per group."""
        lines = {param.name or "": param.get_help_record(ctx) for param in self.get_params(ctx)}
        for title, names in (*GROUPS, (REST, tuple(lines))):
            found = [line for name in names if (line := lines.pop(name, None)) is not None]
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)
