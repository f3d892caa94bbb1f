"""The hub itself, through ``huggingface_hub``: a parcel sent as one commit, a revision fetched whole or not at all.

The address is ``HF_ENDPOINT``'s, the token the one that ``huggingface_hub`` finds (``HF_TOKEN``, ``hf auth login``).
What goes wrong is one line, without the token and without what the server quotes of a request.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from redinstruct.banks.known import behind_a_form, hub_address
from redinstruct.errors import RedInstructError, UsageError
from redinstruct.files.atomic import whole_folder
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.publishing.parcels import CHECKPOINT_FILES, DATA_FILES, Parcel
from redinstruct.publishing.repositories import Repository, RepositoryKind
from redinstruct.run import check_outside
from redinstruct.safetext import terminal
from redinstruct.version import __version__

_CLIENTS = frozenset({"httpx", "httpx2", "httpcore", "huggingface_hub", "requests"})
_PLACES: dict[RepositoryKind, str] = {"model": "", "dataset": "datasets/"}


class Sent(msgspec.Struct, frozen=True):
    """Where a parcel lies now."""

    repository: Repository
    private: bool


class Fetched(msgspec.Struct, frozen=True):
    """What was fetched, pinned to the commit that it is; ``left`` are files of kinds that are not fetched."""

    repository: Repository
    files: tuple[str, ...]
    left: tuple[str, ...]


def push(parcel: Parcel, to: Repository, *, public: bool = False) -> Sent:
    """Send a parcel as one commit; the repository is made where it is not there, private unless ``public``.

    Raises:
        UsageError: the repository is public and nobody said so, or another's.
        RedInstructError: the hub refuses, or does not answer.
    """
    api = _api()
    with _told(to, parcel.kind):
        made = api.create_repo(to.name, private=not public, repo_type=parcel.kind, exist_ok=True)
        private = bool(api.repo_info(made.repo_id, repo_type=parcel.kind).private)
        if not private and not public:
            raise UsageError(f"{to.name} is public: --public says that what is sent may be read by everybody")
        done = api.create_commit(
            made.repo_id,
            [
                CommitOperationAdd(name, held.encode() if isinstance(held, str) else held)
                for name, held in parcel.files.items()
            ],
            commit_message=f"redinstruct {__version__}",
            repo_type=parcel.kind,
            revision=to.revision,
        )
    return Sent(Repository(made.repo_id, done.oid), private)


def pull(
    source: Repository,
    out: Path,
    *,
    kind: RepositoryKind = "model",
    only: Sequence[str] = (),
    on_progress: OnProgress = unheard,
) -> Fetched:
    """Fetch a repository at one commit into a folder that is not there yet. ``only`` are names or patterns of files.

    Raises:
        UsageError: the folder is there, no such repository or revision, it is gated, or nothing of it is fetched.
        RedInstructError: the hub does not answer.
    """
    if os.path.lexists(out):
        raise UsageError(f"--out {terminal(str(out))}: is there already")
    check_outside(out, "--out")
    patterns = (*(only or (CHECKPOINT_FILES if kind == "model" else DATA_FILES)), "README.md")
    with _told(source, kind):
        api = _api()
        ask = api.model_info if kind == "model" else api.dataset_info
        info = ask(source.name, revision=source.revision, files_metadata=True)
        held = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        names = [name for name in held if _wanted(name, patterns)]
        if not any(name != "README.md" for name in names) or info.sha is None:
            raise UsageError(f"{source.name}: holds no file that is fetched ({', '.join(patterns)})")
        pinned = Repository(source.name, info.sha)
        with whole_folder(out, mode=0o700) as folder:
            _fill(folder, pinned, kind, {name: held[name] for name in names}, on_progress)
    return Fetched(pinned, tuple(names), tuple(sorted(set(held) - set(names))))


def _wanted(name: str, patterns: Sequence[str]) -> bool:
    parts = PurePosixPath(name).parts
    inside = not name.startswith("/") and ".." not in parts and "\\" not in name and not name.startswith(".")
    return inside and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _fill(
    folder: Path, pinned: Repository, kind: RepositoryKind, sizes: dict[str, int], on_progress: OnProgress
) -> None:
    done, whole = 0, sum(sizes.values())
    for name, size in sizes.items():
        on_progress(Progress(done, whole, "bytes"))
        hf_hub_download(
            pinned.name, name, repo_type=kind, revision=pinned.revision, local_dir=folder, endpoint=hub_address()
        )
        done += size
    on_progress(Progress(done, whole, "bytes"))
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes


def _api() -> HfApi:
    disable_progress_bars()  # the command shows its own
    return HfApi(endpoint=hub_address(), library_name="redinstruct", library_version=__version__)


@contextlib.contextmanager
def _told(source: Repository, kind: RepositoryKind) -> Iterator[None]:
    """Whatever the hub does wrong as one line."""
    try:
        yield
    except GatedRepoError:
        raise UsageError(behind_a_form(source.name, f"{hub_address()}/{_PLACES[kind]}{source.name}")) from None
    except RevisionNotFoundError:
        raise UsageError(f"{source.name}: no revision {source.revision} there") from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"{source.name}: the hub has no {kind} repository of that name, or does not show it without a token"
        ) from None
    except LocalTokenNotFoundError:
        raise UsageError("the hub wants a token: set HF_TOKEN, or run `hf auth login`") from None
    except HfHubHTTPError as error:
        raise _refused(source, error.response.status_code) from None
    except OSError as error:
        if error.errno is not None:  # the disk's
            raise UsageError(f"--out: cannot be written ({error.strerror})") from None
        raise _silent(error) from None
    except UsageError:
        raise
    except RuntimeError as error:  # an upload that failed, whatever the reason
        raise _silent(error.__cause__ or error) from None
    except Exception as error:  # the library's own client has errors of its own
        if type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise _silent(error) from None


def _refused(source: Repository, status: int) -> RedInstructError:
    host = hub_address().partition("://")[2]
    if status in (401, 403):
        return UsageError(f"{host} refuses {source.name} ({status}): set HF_TOKEN to a token that may write there")
    return RedInstructError(f"{host} answered {status} for {source.name}")


def _silent(error: BaseException) -> RedInstructError:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return UsageError("HF_HUB_OFFLINE is set: nothing is sent or fetched until it is unset")
    return RedInstructError(f"{hub_address().partition('://')[2]} does not answer ({type(error).__name__})")
