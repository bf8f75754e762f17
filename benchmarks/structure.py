"""What the package's structure is: imports that run against the flow of data, cycles, and sizes of files.

    python benchmarks/structure.py

Data flows one way through the layers, in this order; a module imports from its own layer and from layers before it.
"""

import ast
import statistics
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "efsgd_jax"
LAYERS = (
    "errors", "formatting", "files", "images", "versions", "privacy", "data", "models", "config_groups", "synthesizers",
    "config", "config_keys", "training", "runs", "tables", "evaluation", "protect", "audit", "reports", "cli", "train",
    "__main__", "",
)  # fmt: skip
LONGEST, MEDIAN = 300, 120


def modules() -> dict[str, Path]:
    """The package's modules, by their names."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = (PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """The package's modules that each module imports, anywhere in it except under ``TYPE_CHECKING``."""
    found = defaultdict(set)
    for name, file in files.items():
        tree = ast.parse(file.read_text())
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and node not in for_types
                and (node.module or "").startswith("efsgd_jax")
            ):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found[name].add(whole if whole in files else node.module)
    return found


def layer(name: str) -> str:
    return [*name.split("."), ""][1]


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a layer that comes after the importing module's own."""
    return sorted(
        f"{a} imports {b}"
        for a, found in graph.items()
        for b in found
        if LAYERS.index(layer(a)) < LAYERS.index(layer(b))
    )


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves, through others."""

    def reached(start: str) -> set[str]:
        seen, left = set(), list(graph[start])
        while left:
            if (name := left.pop()) not in seen:
                seen.add(name)
                left.extend(graph.get(name, ()))
        return seen

    return sorted(name for name in list(graph) if name in reached(name))


def main() -> int:
    files = modules()
    graph = imports(files)
    sizes = {name: len(file.read_text().splitlines()) for name, file in files.items()}
    long = sorted(f"{name}: {size} lines" for name, size in sizes.items() if size > LONGEST)
    found = {
        "imports that run up": upward(graph),
        "modules in a cycle": cycles(graph),
        f"files over {LONGEST} lines": long,
    }
    for title, lines in found.items():
        print(f"{title}: {len(lines)}", *(f"  {line}" for line in lines), sep="\n")
    median = statistics.median(sizes.values())
    print(f"files: {len(sizes)}, median {median:g} lines, longest {max(sizes.values())}")
    return 1 if any(found.values()) or median > MEDIAN else 0


if __name__ == "__main__":
    sys.exit(main())
