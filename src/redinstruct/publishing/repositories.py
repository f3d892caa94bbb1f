"""Names of repositories: ``OWNER/NAME``, ``OWNER/NAME@REVISION``, with or without ``hf/`` before it."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from redinstruct.errors import UsageError
from redinstruct.safetext import terminal

RepositoryKind = Literal["model", "dataset"]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w./-]{1,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Repository(msgspec.Struct, frozen=True):
    """A repository, and a revision of it: a branch, a tag or a commit; None: the newest of its main branch."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        """The name as a person writes it."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @property
    def pinned(self) -> bool:
        """Whether the revision can never mean other bytes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


def repository(name: str) -> Repository:
    """Read a name.

    Raises:
        UsageError: it is none.
    """
    whole, at, revision = name.removeprefix("hf/").partition("@")
    if not _NAME.fullmatch(whole) or ".." in whole or "--" in whole or (at and not _REVISION.fullmatch(revision)):
        raise UsageError(f"{terminal(name)[:200]}: expected OWNER/NAME of a repository, or OWNER/NAME@REVISION")
    return Repository(whole, revision or None)
