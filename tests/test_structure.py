"""The house's rules, held by the syntax tree instead of by reviewers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from functools import cache

import pytest

from tests.support.house import (
    ALLOWED,
    ROOT,
    allowed,
    arrows,
    circle,
    doubled,
    house,
    imports_of,
    outgrown,
    room_of,
    shrunk,
    sources,
    untyped_by_room,
    walked,
)

# One direction of imports: a room imports only rooms above it.
ROOMS = (
    "errors", "version", "settings", "types", "progress", "safetext", "files", "world", "machine", "stats", "questions",
    "prompts", "policy", "banks", "checkpoints", "alignment", "run", "figures", "render", "models", "judges",
    "engine", "redeval", "harmfulqa",
    "safealign", "utility_check", "annotate", "viewer", "interop", "publishing", "toyworld", "stressing", "rounds",
    "inspect_tasks", "api", "cli", "__main__",
)  # fmt: skip
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "datasets",
    "ray",
    "accelerate",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "inspect_ai",
}
HEAVY_ROOMS = (
    "checkpoints/loading.py", "checkpoints/products.py", "checkpoints/chats.py", "checkpoints/making.py",
    "models/transformers.py",
    "models/chat_tokens.py", "models/vllm_engine.py",
    "models/cascade.py", "models/prefix_cache.py", "models/decoding.py", "models/likelihood.py", "safealign/",
    "utility_check/", "toyworld/", "engine/ray", "stressing/ablating.py", "stressing/rounding.py",
    "models/inspect_model.py", "inspect_tasks/", "publishing/client.py",
)  # fmt: skip
SOCKETS = {"aiohttp", "socket", "urllib.request", "http.client", "yarl", "ssl"}
# The last one only listens, on 127.0.0.1.
SOCKET_FILES = (
    "models/openai_api.py",
    "models/addresses.py",
    "models/proxies.py",
    "banks/__init__.py",
    "engine/ray_engine.py",
    "annotate/serving.py",
)
NEVER = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "requests", "httpx"}


@cache
def calls_of(tree: ast.AST) -> Sequence[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in walked(tree) if isinstance(node, ast.Call)]


def is_under(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def importing(names: set[str], *, but: tuple[str, ...] = ()) -> list[str]:
    """The files, except those under ``but``, that import any of these modules, each with what it imports."""
    return [
        f"{name} imports {module}"
        for name, tree in house().items()
        if not name.startswith(but)
        for module in imports_of(tree)
        if is_under(module, names)
    ]


def calling(names: set[str], *, but: tuple[str, ...] = ()) -> list[str]:
    """The places, except under ``but``, where any of these is called by that name."""
    return [
        f"{name}:{call.lineno} calls {called}"
        for name, tree in house().items()
        if not name.startswith(but)
        for called, call in calls_of(tree)
        if called in names
    ]


def test_a_room_imports_only_rooms_above_it() -> None:
    """Imports in functions count, and those for the type checker. The package's own ``__init__`` is its public door."""
    offences = []
    for name, others in arrows(house()).items():
        room = room_of(name)
        if room == "__init__":
            assert {room_of(other) for other in others} <= {"api", "render", "stats", "version"}
            continue
        assert room in ROOMS, f"{name} has no place in the house"
        offences += [
            f"{name} imports {other}, which is not above it"
            for other in sorted(others)
            if room_of(other) not in ROOMS or ROOMS.index(room_of(other)) > ROOMS.index(room)
        ]
    assert not offences


def test_nobody_reaches_into_another_s_privates() -> None:
    """``other._name`` where no class of the same file has it; what a kept library calls so is its own affair."""
    library = {"_replace", "_parameters", "_buffers", "_version"}
    own: dict[str, set[str]] = {}
    reached: list[tuple[str, ast.Attribute]] = []
    for name, tree in house().items():
        own[name] = set()
        for node in walked(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own[name].add(node.name)
            elif isinstance(node, ast.Attribute) and is_self(node.value):
                own[name].add(node.attr)
            elif isinstance(node, ast.Attribute) and node.attr[:1] == "_" and node.attr[:2] != "__":
                reached.append((name, node))
    ours = set().union(*own.values()) - library
    assert not [f"{name}:{n.lineno} {ast.unparse(n)}" for name, n in reached if n.attr in ours - own[name]]


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_sql_stands_in_the_room_of_runs_alone() -> None:
    """PyRIT's own memory is read where its answers are imported."""
    assert not importing({"sqlite3"}, but=("run/", "interop/pyrit.py"))


def test_no_circle_of_files() -> None:
    """Within a room neither, whether an import stands in a function or not."""
    assert not circle(arrows(house()))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"run/a.py": "from redinstruct.run import b", "run/b.py": "def f():\n    import redinstruct.run.a"}, True),
        ({"run/__init__.py": "from redinstruct.run.a import x", "run/a.py": "from redinstruct.run import y"}, True),
        ({"__init__.py": "_LAZY = {'x': 'redinstruct.api'}", "api.py": "import redinstruct"}, True),
        ({"run/a.py": "from redinstruct.run.b import x", "run/b.py": "from redinstruct.errors import y"}, False),
    ],
)
def test_a_circle_is_seen_wherever_its_imports_stand(files: dict[str, str], expected: bool) -> None:
    ring = circle(arrows({name: ast.parse(text) for name, text in files.items()}))
    assert sorted(set(ring)) == (sorted(files) if expected else [])


def test_nothing_outgrows_its_measure() -> None:
    """50 lines a function, 450 a file, 8 parameters; what is over them is listed, and the list only shrinks."""
    listed = {line for line in allowed(ALLOWED.read_text(encoding="utf-8"))[0] if not line.startswith("name ")}
    found = outgrown(house())
    assert not found - listed, "too long, or too many parameters"
    assert not listed - found, "mended: take it out of the list by: python -m tests.support.house"


def test_one_name_means_one_thing() -> None:
    """Of classes and types; those that still mean two are listed, and the list only shrinks."""
    listed = {line for line in allowed(ALLOWED.read_text(encoding="utf-8"))[0] if line.startswith("name ")}
    found = doubled(house())
    assert sorted(found - listed) == [], "another file has a class or type of this name"
    assert not listed - found, "mended: take it out of the list by: python -m tests.support.house"


def test_a_name_that_means_two_things_is_seen() -> None:
    files = {
        "run/a.py": ast.parse("class Row: ...\nKind = str"),
        "cli/b.py": ast.parse("Row = dict[str, str]\nMOST = 3"),
    }
    assert doubled(files) == {"name Row run/a.py", "name Row cli/b.py"}


def test_untyped_dictionaries_only_get_fewer() -> None:
    _, numbers = allowed(ALLOWED.read_text(encoding="utf-8"))
    there = untyped_by_room(sources())
    assert sum(there.values()) <= sum(numbers.values()), f"dict[str, Any] and its kin: {there}, listed: {numbers}"


def test_the_list_of_the_outgrown_shrinks_and_never_grows() -> None:
    long = "def f():\n" + "    pass\n" * 60
    files = {"run/a.py": ast.parse(long), "run/b.py": ast.parse(long)}
    listed = "# run\nlines run/a.py f\nlines run/gone.py f\nuntyped run 3\n"
    assert outgrown(files) == {"lines run/a.py f", "lines run/b.py f"}
    assert shrunk(listed, files, {"run/a.py": "x: dict[str, Any]"}) == "# run\nlines run/a.py f\nuntyped run 1\n"


def test_heavy_libraries_are_imported_only_in_their_rooms() -> None:
    assert not importing(HEAVY, but=HEAVY_ROOMS)


def test_sockets_are_opened_only_where_the_design_says() -> None:
    assert not importing(SOCKETS, but=SOCKET_FILES)


def test_no_pickle_and_no_code_from_text() -> None:
    assert not importing(NEVER)
    # `model.eval()` and `re.compile()` are other things: only the bare names count.
    assert not calling({"eval", "exec", "compile", "yaml.load", "torch.load", "os.system", "__import__"})


def test_remote_code_is_never_trusted() -> None:
    offences = [
        f"{name}:{call.lineno}"
        for name, tree in house().items()
        for _, call in calls_of(tree)
        for keyword in call.keywords
        if keyword.arg == "trust_remote_code"
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    assert not offences


def test_only_the_console_writes_to_a_terminal() -> None:
    writers = {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write", "rich.print"}
    assert not calling(writers, but=("cli/console.py",))
    assert not importing({"rich", "click"}, but=("cli/",))


def statements_of_text() -> tuple[int, list[str]]:
    """How many places give SQLite a statement, and those that make one of anything but constants."""
    words = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "PRAGMA ")
    count, offences = 0, []
    for name, tree in house().items():
        for node in walked(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(p.value for p in node.values if isinstance(p, ast.Constant) and isinstance(p.value, str))
                if text.startswith(words):
                    offences.append(f"{name}:{node.lineno} is f-string SQL")
        for called, call in calls_of(tree):
            if called.endswith((".execute", ".executemany", ".executescript")) and call.args:
                count += 1
                statement = call.args[0]
                plain = isinstance(statement, ast.Constant | ast.Name | ast.IfExp)
                pragma = isinstance(statement, ast.BinOp) and isinstance(statement.op, ast.Mod)
                if not plain and not (pragma and name == "run/schema.py"):
                    offences.append(f"{name}:{call.lineno} makes a statement of something else")
    return count, offences


def test_sql_is_made_of_constants() -> None:
    """Values go in by parameters. A statement may be put together of this module's constants, of nothing else."""
    assert not statements_of_text()[1]


def test_a_report_can_not_spend_money() -> None:
    spending = {"redinstruct.models", "redinstruct.engine"}
    assert not [told for told in importing(spending) if told.startswith(("run/", "figures/", "render/", "annotate/"))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import torch.nn", "x.py imports torch.nn"),
        ("def f():\n    from torch import nn", "x.py imports torch"),
        ("from redinstruct import torch", None),
    ],
)
def test_an_import_is_seen_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, text: str, found: str | None) -> None:
    monkeypatch.setattr(sys.modules[__name__], "house", lambda: {"x.py": ast.parse(text), "y/z.py": ast.parse(text)})
    assert importing({"torch"}, but=("y/",))[:1] == ([] if found is None else [found])


def test_the_public_names_are_what_the_package_shows() -> None:
    import redinstruct

    assert set(redinstruct.__all__) == set(dir(redinstruct))
    for name in redinstruct.__all__:
        assert getattr(redinstruct, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        redinstruct.nothing_of_the_kind  # noqa: B018


def test_the_core_needs_at_most_thirty_distributions() -> None:
    lock = (ROOT / "requirements" / "core.txt").read_text()
    names = [line.split("==")[0] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(names) >= len(declared)
    assert len(names) <= 30, names


def test_the_socket_guard_stops_what_leaves_this_machine() -> None:
    import socket

    with pytest.raises(RuntimeError, match="stay on this machine"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(RuntimeError, match="stay on this machine"):
        socket.getaddrinfo("example.org", 443)
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "stay on this machine" in child.stderr, "child processes are not under the guard"


def test_no_file_holds_the_path_of_one_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    needles = ["/" + "work/", "/" + "root/", "/tmp/" + "w/"]
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ""}
            and path.is_file()
            and path.stat().st_size < 400_000
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [needle for needle in needles if needle in text], name


def test_whole_files_are_written_in_one_place() -> None:
    """Synced, and whole or not at all, wherever they go: ``write_file`` and ``whole_file``."""
    writers = {"write_text", "write_bytes"}
    found = [
        f"{name}:{call.lineno} {called}"
        for name, tree in house().items()
        for called, call in calls_of(tree)
        if called.rpartition(".")[2] in writers or (called.rpartition(".")[2] == "open" and _writes(call))
    ]
    assert not [one for one in found if not one.startswith(WRITERS)]


def _writes(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(re.fullmatch("[wxa][bt+]*", mode) for mode in modes)


# Whoever writes to a file that is not one whole: the first does it for all.
WRITERS = ("files/atomic.py",)

# Whoever removes a file or folder, and what: nothing that is not ours is ever deleted.
REMOVERS = {
    "engine/ray_engine.py": "Ray's own folder, made by this command; those of killed commands, found under no lock",
    "files/atomic.py": "the one temporary name beside a place, locked; what stood at a place that a new folder took",
    "run/folder.py": "a run's own names, under its lock; a folder that is empty",
    "publishing/client.py": "the hub library's notes in a folder that is not in its place yet",
    "run/purging.py": "a run that the user purges, what kills left of it, under its lock",
    "safealign/training.py": "checkpoints within the hidden folder of an unfinished alignment",
    "safealign/unfinished.py": "the hidden folder of an unfinished alignment, once it is done",
    "safealign/states.py": "older states within that folder",
    "safealign/unsafe.py": "the hidden folder of the unsafe model",
    "safealign/exports.py": "a card that peft wrote into a checkpoint under way",
    "safealign/fidelity.py": "a checkpoint under way, which is written once more in another precision",
}


def test_only_these_places_remove_anything() -> None:
    removing = {"rmtree", "unlink", "rmdir", "removedirs"}
    found = {
        name
        for name, tree in house().items()
        for called, _ in calls_of(tree)
        if called.rpartition(".")[2] in removing or called in ("os.remove", "os.rename", "os.replace")
    }
    assert not found - set(REMOVERS)
