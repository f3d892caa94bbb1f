"""The house as a graph: which file imports which, wherever the import stands, and what has outgrown its measure.

``tests/support/outgrown.txt`` lists, room by room, what may still be too long or too wide, how many untyped
dictionaries a room may still have, and which names still mean two things. It only shrinks:
``python -m tests.support.house`` takes out what is mended and lowers the numbers; it never adds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "redinstruct"
LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 50, 450, 8

ALLOWED = Path(__file__).parent / "outgrown.txt"

House = Mapping[str, ast.Module]
_UNTYPED = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, (?:Any|object)\]")


@cache
def house() -> House:
    """Every file of the package by its path there, with its syntax tree."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def walked(tree: ast.AST) -> Sequence[ast.AST]:
    """``ast.walk``, once for all who ask: a dozen tests look at every node of the house."""
    return tuple(ast.walk(tree))


def room_of(name: str) -> str:
    return name.partition("/")[0].removesuffix(".py")


@cache
def imports_of(tree: ast.AST) -> Sequence[str]:
    """Every module that a syntax tree imports, inside functions and for the type checker too."""
    return list(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in walked(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "relative imports hide the direction"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(files: House) -> dict[str, set[str]]:
    """File -> the files that it imports: ``from redinstruct.run import rows`` is ``run/rows.py``, where there is one.

    The package's own ``__init__`` names its lazy doors in a table; they count as its imports.
    """
    graph: dict[str, set[str]] = {}
    for name, tree in files.items():
        graph[name] = set()
        for node in walked(tree):
            if isinstance(node, ast.Import):
                graph[name] |= {_file(files, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    graph[name].add(_file(files, f"{node.module}.{alias.name}") or _file(files, node.module))
            elif name == "__init__.py" and isinstance(node, ast.Constant) and isinstance(node.value, str):
                graph[name].add(_file(files, node.value))
        graph[name] -= {"", name}
    return graph


def _file(files: House, module: str) -> str:
    if module != "redinstruct" and not module.startswith("redinstruct."):
        return ""
    path = module.removeprefix("redinstruct").removeprefix(".").replace(".", "/")
    here = f"{path}/__init__.py" if path else "__init__.py"
    return here if here in files else f"{path}.py" if f"{path}.py" in files else ""


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Files that import each other in a ring, the first of which stands last again; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def outgrown(files: House) -> set[str]:
    """What is longer or wider than the house allows, one line each: ``lines`` or ``parameters``, and where.

    The verbs as functions (``api``) may take as many settings by name as the verb has.
    """
    offenders = set()
    for name, tree in files.items():
        if _last_line(tree) > LONGEST_FILE:
            offenders.add(f"lines {name}")
        for path, node in _functions(tree, ()):
            where = f"{name} {'.'.join(path)}"
            if (node.end_lineno or node.lineno) - node.lineno + 1 > LONGEST_FUNCTION:
                offenders.add(f"lines {where}")
            a = node.args
            named = 0 if room_of(name) == "api" else len(a.kwonlyargs) + (a.kwarg is not None)
            if len(a.posonlyargs) + len(a.args) + (a.vararg is not None) + named > MOST_PARAMETERS:
                offenders.add(f"parameters {where}")
    return offenders


def doubled(files: House) -> set[str]:
    """Names of classes and types that stand at the top of several files, one line each: ``name``, it, and the file.

    Inspect's own shapes have Inspect's own names, where they are read as where they are written.
    """
    where: dict[str, set[str]] = {}
    for file, tree in files.items():
        for node in tree.body:
            for name in _types_named(node):
                if not file.startswith("interop/inspect_"):
                    where.setdefault(name, set()).add(file)
    return {f"name {name} {file}" for name, found in where.items() for file in found if len(found) > 1}


def _types_named(node: ast.stmt) -> list[str]:
    """What a statement names that may be a type: a class, or an alias in capitals and small letters."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if re.match(r"_?[A-Z]", name) and not name.isupper()]


def _last_line(tree: ast.Module) -> int:
    return max((node.end_lineno or 0 for node in tree.body), default=0)


def _functions(
    node: ast.AST, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        inside = above
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*above, child.name)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inside, child
        yield from _functions(child, inside)


def untyped(texts: Mapping[str, str]) -> dict[str, int]:
    """File -> how often it says ``dict[str, Any]`` or one of its kin."""
    found = {name: len(_UNTYPED.findall(text)) for name, text in texts.items()}
    return {name: count for name, count in found.items() if count}


def sources() -> dict[str, str]:
    """Every file of the package, as text."""
    return {p.relative_to(PACKAGE).as_posix(): p.read_text(encoding="utf-8") for p in sorted(PACKAGE.rglob("*.py"))}


def untyped_by_room(texts: Mapping[str, str]) -> dict[str, int]:
    """Room -> how often its files say so."""
    found: dict[str, int] = {}
    for name, count in untyped(texts).items():
        found[room_of(name)] = found.get(room_of(name), 0) + count
    return found


def allowed(text: str) -> tuple[set[str], dict[str, int]]:
    """What the list lets through: offenders, and room -> untyped dictionaries."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    dictionaries = [line.split() for line in lines if line.startswith("untyped ")]
    return {line for line in lines if not line.startswith("untyped ")}, {room: int(n) for _, room, n in dictionaries}


def shrunk(text: str, files: House, texts: Mapping[str, str]) -> str:
    """The list without what is mended; its numbers are what is there, unless that is more than before in all."""
    still, there = outgrown(files) | doubled(files), untyped_by_room(texts)
    fewer = sum(there.values()) <= sum(allowed(text)[1].values())
    kept = []
    for line in text.splitlines():
        if line.startswith("untyped "):
            _, room, number = line.split()
            kept.append(f"untyped {room} {there.get(room, 0) if fewer else number}")
        elif not line or line.startswith("#") or line in still:
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    ALLOWED.write_text(shrunk(ALLOWED.read_text(encoding="utf-8"), house(), sources()), encoding="utf-8")
