"""Size and import graph of the product: run it before and after a change of structure.

.venv/bin/python -m benchmarks.structure [FOLDER]

A floor is the longest chain of imports below a package or module; imports in a cycle count once.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from pathlib import Path

ROOTS = ("pngmodel", "tasks", "flows", "infra")
Graph = Mapping[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Every module of the product by dotted name; a package is its ``__init__``."""
    found = {}
    for path in (path for name in ROOTS for path in sorted((root / name).rglob("*.py"))):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: Mapping[str, Path]) -> Graph:
    """Imported modules of the product by importing module, including imports inside functions."""
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                wanted = {f"{node.module}.{alias.name}" for alias in node.names} & files.keys()
                graph[name] |= wanted or ({node.module} & files.keys())
    return graph


def _package(name: str, path: Path) -> str:
    """Package of a module: a package of ``tasks``, or another root, each with the packages inside it."""
    parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return ".".join(parts[: 2 if parts[0] == "tasks" else 1])


def packages(graph: Graph, files: Mapping[str, Path]) -> Graph:
    """The same graph between packages."""
    home = {name: _package(name, files[name]) for name in files}
    found: dict[str, set[str]] = {home[name]: set() for name in files}
    for name, targets in graph.items():
        found[home[name]] |= {home[target] for target in targets} - {home[name]}
    return found


def floors(graph: Graph) -> int:
    """Length of the longest chain of imports."""
    heights: dict[str, int] = {}

    def height(name: str, above: frozenset[str]) -> int:
        if name not in heights:
            below = [height(target, above | {name}) for target in graph[name] if target not in above]
            heights[name] = 1 + max(below, default=0)
        return heights[name]

    return max(height(name, frozenset()) for name in graph)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    root = parser.parse_args().folder
    files = modules(root)
    graph = imports(files)
    loose = [p for p in (root / "tasks").glob("*.py") if p.name != "__init__.py"]
    inside = [p for p in (root / "tasks").iterdir() if (p / "__init__.py").exists()]
    print(f"tasks/: {len(inside)} packages, {len(loose)} loose modules")
    for label, found in (("packages", packages(graph, files)), ("modules", graph)):
        print(f"{label}: {len(found)}, {floors(found)} floors, {sum(map(len, found.values()))} edges")
    lines = {name: sum(len(p.read_text().splitlines()) for p in sorted((root / name).rglob("*.py"))) for name in ROOTS}
    print(f"lines: product {sum(lines.values())} {lines}")
    tests = sum(len(p.read_text().splitlines()) for p in sorted((root / "tests").rglob("*.py")))
    print(f"lines: tests {tests}")


if __name__ == "__main__":
    main()
