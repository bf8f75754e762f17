"""Passages of code and docs, picked at random with a fixed seed, for a reader who does not know the project.

    python benchmarks/passages.py > passages.txt

A passage is a paragraph of a page, or a function or class of the package with its docstring and comments, of 4 to 40
lines. The reader says of each which word or sentence stopped them.
"""

import argparse
import ast
import random
from pathlib import Path

ROOT = Path(__file__).parents[1]


def paragraphs() -> list[tuple[str, str]]:
    found = []
    for page in sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]):
        text = page.read_text(encoding="utf-8")
        for block in text.split("\n\n"):
            if 4 <= len(block.splitlines()) <= 40 and not block.startswith(("|", "```")):
                found.append((str(page.relative_to(ROOT)), block))
    return found


def definitions() -> list[tuple[str, str]]:
    found = []
    for file in sorted(ROOT.glob("efsgd_jax/**/*.py")):
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
                if 4 <= len(lines) <= 40:
                    found.append((f"{file.relative_to(ROOT)}:{node.lineno}", "\n".join(lines)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=22)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    half = args.count // 2
    picked = draw.sample(paragraphs(), half) + draw.sample(definitions(), args.count - half)
    for number, (place, text) in enumerate(picked, 1):
        print(f"=== {number}. {place}\n\n{text}\n")


if __name__ == "__main__":
    main()
