"""No package imports in a circle: not its files, not its rooms; type-only and function-level imports count too."""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["cli", "harmony", "model"]

Graph = Mapping[str, set[str]]


def import_graph(folder: Path, package: str) -> Graph:
    """The modules of a package, and for each those of the package that it imports."""
    files = {_name_of(path.relative_to(folder), package): path for path in folder.rglob("*.py")}
    return {name: set(_imports(name, path, files)) - {name} for name, path in files.items()}


def room_graph(graph: Graph, package: str) -> Graph:
    """The same of the rooms: the sub-packages, and the modules beside them."""

    def room(module: str) -> str:
        return module.removeprefix(package).lstrip(".").partition(".")[0] or package

    rooms: dict[str, set[str]] = {room(module): set() for module in graph}
    for module, imported in graph.items():
        rooms[room(module)] |= {room(other) for other in imported} - {room(module)}
    return rooms


def cycles(graph: Graph) -> list[list[str]]:
    """For each set of modules that all import each other, one way round."""
    found, seen = [], set()
    for start in sorted(graph):
        way = None if start in seen else _way_round(graph, start)
        if way is not None:
            found.append(way)
            seen |= {module for module in graph if _reaches(graph, start, module) and _reaches(graph, module, start)}
    return found


def _name_of(path: Path, package: str) -> str:
    parts = path.with_suffix("").parts
    return ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])


def _imports(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                if submodule in files or source in files:
                    yield submodule if submodule in files else source


def _way_round(graph: Graph, start: str) -> list[str] | None:
    """The shortest way from a module back to itself."""
    ways = [[start, each] for each in sorted(graph[start])]
    seen: set[str] = set()
    for way in ways:  # grows while it is gone through
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, each] for each in sorted(graph[way[-1]])]
    return None


def _reaches(graph: Graph, start: str, end: str) -> bool:
    reached, waiting = set(), [start]
    while waiting:
        for each in graph[waiting.pop()] - reached:
            reached.add(each)
            waiting.append(each)
    return end in reached


def _told(ways: list[list[str]]) -> str:
    return "\n".join(" -> ".join(way) for way in ways)


@pytest.mark.parametrize("package", PACKAGES)
def test_files_import_in_no_circle(package: str) -> None:
    found = cycles(import_graph(ROOT / package, f"gptoss.{package}"))
    assert not found, _told(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_in_no_circle(package: str) -> None:
    graph = import_graph(ROOT / package, f"gptoss.{package}")
    found = cycles(room_graph(graph, f"gptoss.{package}"))
    assert not found, _told(found)


def test_every_kind_of_import_counts(tmp_path: Path) -> None:
    sources = {
        "a/__init__.py": "",
        "a/one.py": "from p.b import two",
        "b/__init__.py": "from .two import f",
        "b/two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..c import g",
        "c/__init__.py": "def g():\n    import p.a.one",
        "d.py": "from p.a.one import x",
    }
    for name, source in sources.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    graph = import_graph(tmp_path, "p")
    assert graph == {
        "p.a": set(),
        "p.a.one": {"p.b.two"},
        "p.b": {"p.b.two"},
        "p.b.two": {"p.c"},
        "p.c": {"p.a.one"},
        "p.d": {"p.a.one"},
    }
    assert cycles(graph) == [["p.a.one", "p.b.two", "p.c", "p.a.one"]]
    assert room_graph(graph, "p") == {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert cycles({"x": {"y"}, "y": set()}) == []
