"""For the site: results, tests and schemas that pages refer to outside of docs/ are copied beside them."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)\)")


def on_files(files: Files, config: Any) -> Files:
    for page in Path(config["docs_dir"]).glob("*.md"):
        for place in OUTSIDE.findall(page.read_text(encoding="utf-8")):
            here = ROOT / place
            for file in [here] if here.is_file() else sorted(here.glob("*.png")):
                uri = file.relative_to(ROOT).as_posix()
                if files.get_file_from_path(uri) is None:
                    files.append(File.generated(config, uri, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    def inside(match: re.Match[str]) -> str:
        place = match.group(1)
        if (ROOT / place).is_dir():  # the first of its pictures
            place = next(iter(sorted((ROOT / place).glob("*.png")))).relative_to(ROOT).as_posix()
        return f"]({place})"

    return OUTSIDE.sub(inside, markdown)
