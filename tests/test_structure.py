"""The house's rules, held by the syntax tree instead of by reviewers."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "redinstruct"

# One direction of imports: a room imports only rooms above it.
ROOMS = (
    "errors", "types", "atomic", "world", "safetext", "jsonrows", "prompts", "stats", "config", "questions", "banks",
    "checkpoints", "store", "people",
    "models", "judges", "engine", "redeval", "spending", "harmfulqa", "safealign", "utility", "comparison", "reporting",
    "annotate", "interop", "toyworld", "loop", "runview", "api", "cli", "__main__",
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
}
HEAVY_ROOMS = (
    "models/transformers.py", "models/prefix_cache.py", "models/decoding.py", "safealign/", "utility/", "toyworld/",
    "engine/ray",
)  # fmt: skip
SOCKETS = {"aiohttp", "socket", "urllib.request", "http.client", "yarl", "ssl"}
# The last one only listens, on 127.0.0.1.
SOCKET_FILES = {"models/openai_api.py", "banks.py", "annotate/server.py"}
NEVER = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "requests", "httpx"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that a syntax tree imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "relative imports hide the direction"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_of(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_under(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for module in imports_of(tree_of(path)):
        if module.startswith("redinstruct."):
            other = module.split(".")[1]
            if other == "__version__":
                continue
            assert other in ROOMS, f"{other} has no place in the house"
            assert ROOMS.index(other) <= ROOMS.index(room), f"{name_of(path)} imports {other}, which is below it"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_heavy_libraries_are_imported_only_in_their_rooms(path: Path) -> None:
    if name_of(path).startswith(HEAVY_ROOMS):
        return
    assert not [m for m in imports_of(tree_of(path)) if is_under(m, HEAVY)]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_sockets_are_opened_only_where_the_design_says(path: Path) -> None:
    if name_of(path) in SOCKET_FILES:
        return
    assert not [m for m in imports_of(tree_of(path)) if is_under(m, SOCKETS)]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_no_pickle_and_no_code_from_text(path: Path) -> None:
    tree = tree_of(path)
    assert not [m for m in imports_of(tree) if is_under(m, NEVER)]
    banned = {"eval", "exec", "compile", "yaml.load", "torch.load", "os.system", "__import__"}
    # `model.eval()` and `re.compile()` are other things: only the bare names count.
    assert not [name for name, _ in calls_of(tree) if name in banned]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_remote_code_is_never_trusted(path: Path) -> None:
    for name, call in calls_of(tree_of(path)):
        for keyword in call.keywords:
            if keyword.arg == "trust_remote_code":
                assert isinstance(keyword.value, ast.Constant), f"{name} takes trust_remote_code from somewhere"
                assert keyword.value.value is False


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_only_the_console_writes_to_a_terminal(path: Path) -> None:
    if name_of(path) == "cli/console.py":
        return
    written = {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write", "rich.print"}
    assert not [name for name, _ in calls_of(tree_of(path)) if name in written]
    if room_of(path) != "cli":
        assert not [m for m in imports_of(tree_of(path)) if is_under(m, {"rich", "click"})]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_sql_is_made_of_constants(path: Path) -> None:
    """Values go in by parameters. A statement may be put together of this module's constants, of nothing else."""
    tree = tree_of(path)
    words = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "PRAGMA ")
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(p.value for p in node.values if isinstance(p, ast.Constant) and isinstance(p.value, str))
            assert not text.startswith(words), f"{name_of(path)}:{node.lineno} is f-string SQL"
    for name, call in calls_of(tree):
        if name.endswith((".execute", ".executemany", ".executescript")) and call.args:
            statement = call.args[0]
            plain = isinstance(statement, ast.Constant | ast.Name | ast.IfExp)
            pragma = isinstance(statement, ast.BinOp) and isinstance(statement.op, ast.Mod)
            assert plain or (pragma and name_of(path) == "store/schema.py"), f"{name_of(path)}:{call.lineno}"


def test_a_report_can_not_spend_money() -> None:
    for room in ("reporting", "annotate"):
        for path in (PACKAGE / room).rglob("*.py"):
            reached = {
                m for m in imports_of(tree_of(path)) if m.startswith(("redinstruct.models", "redinstruct.engine"))
            }
            assert not reached, f"{name_of(path)} reaches {reached}"


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
