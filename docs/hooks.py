"""For the site: results, tests and schemas that pages refer to outside of docs/ are copied beside them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"\]\((\.\./[\w./-]+)(#[\w-]+)?\)")


def _outside(markdown: str, folder: Path, replace: Callable[[Path], str] = str) -> tuple[str, list[Path]]:
    """The page with ``replace(place)`` for each link out of docs/, and these places, relative to the root."""
    places = []

    def one(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match.group(1)))
        if target.is_relative_to(DOCS):
            return match.group(0)
        places.append(target.relative_to(ROOT))
        return f"]({replace(places[-1])})"

    return LINK.sub(one, markdown), places


def on_files(files: Files, config: Any) -> Files:
    for page in DOCS.rglob("*.md"):
        for place in _outside(page.read_text(encoding="utf-8"), page.parent)[1]:
            here = ROOT / place
            for file in [here] if here.is_file() else sorted(here.glob("*.png")):
                uri = file.relative_to(ROOT).as_posix()
                if files.get_file_from_path(uri) is None:
                    files.append(File.generated(config, uri, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    folder = DOCS / Path(page.file.src_uri).parent

    def inside(place: Path) -> str:
        if (ROOT / place).is_dir():  # the first of its pictures
            place = next(iter(sorted((ROOT / place).glob("*.png")))).relative_to(ROOT)
        return Path(os.path.relpath(DOCS / place, folder)).as_posix()

    return _outside(markdown, folder, inside)[0]
