"""The documentation: its site builds without a warning, every block of code on it runs as it is printed, and its pages
are short, linked correctly and written in the words of the field."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import load_dataset
from efsgd_jax.data.resize import resize_square

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))
TEXTS = [*(f"docs/{page}" for page in PAGES), "README.md", "CONTRIBUTING.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
# Private vocabulary, and words for people where records are meant. A PATE teacher is a term of the field.
FORBIDDEN = re.compile(
    r"\b(everybody|nobody|somebody|flagships?|levers?|drown(s|ed|ing)? in)\b|(?<!\bpate )\bteachers?\b", re.I
)


def blocks(page):
    return FENCE.findall((DOCS / page).read_text(encoding="utf-8"))


def prose(text):
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text):
    """The anchors of a page's headings, as the site and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory):
    """Digits of MNIST's size in the place of its download."""
    cache = tmp_path_factory.mktemp("cache")
    digits = load_dataset("digits")
    parts = {"train": (digits.train_images, digits.train_labels), "test": (digits.test_images, digits.test_labels)}
    arrays = {f"x_{k}": resize_square(x, 28)[..., 0] for k, (x, _) in parts.items()}
    np.savez(cache / "mnist.npz", **arrays, **{f"y_{k}": y for k, (_, y) in parts.items()})
    return cache


def draw_pictures(directory):
    digits = load_dataset("digits")
    for name, label in (("affected", 3), ("healthy", 7)):
        (directory / name).mkdir(parents=True)
        for i, image in enumerate(digits.train_images[digits.train_labels == label]):
            Image.fromarray(image[..., 0]).resize((20, 20)).save(directory / name / f"{i}.png")


# Of index.md, test_readme.py runs the same commands.
SLOW = ("data_owners.md", "configs.md", "index.md")
# Its blocks are files; test_add_a_method.py runs them.
FILES = "add_a_method.md"
WITH_CODE = [p for p in PAGES if p != FILES and any(kind in ("python", "sh") for kind, _ in blocks(p))]


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in WITH_CODE])
def test_code_runs_as_it_is_printed(page, tmp_path, monkeypatch, small_mnist):
    monkeypatch.chdir(tmp_path)
    draw_pictures(tmp_path / "pictures")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "EFSGD_JAX_DATA": str(small_mnist), "PATH": path}
    monkeypatch.setenv("EFSGD_JAX_DATA", str(small_mnist))
    names = {"__name__": "page"}
    for kind, code in blocks(page):
        if kind == "python":
            exec(compile(code, page, "exec"), names)
        elif kind == "sh":
            done = subprocess.run(
                ["bash", "-ec", code], env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            assert done.returncode == 0, f"{code}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


def test_pages_are_short():
    words = {name: len((ROOT / name).read_text(encoding="utf-8").split()) for name in TEXTS}
    assert not {name: count for name, count in words.items() if count >= (1600 if name == "README.md" else 2000)}


def test_prose_is_at_most_120_columns_wide():
    """Tables, blocks of code and lines with an address are excepted."""
    wide = [
        f"{name}: {line}"
        for name in TEXTS
        for line in prose((ROOT / name).read_text(encoding="utf-8")).splitlines()
        if len(line) > 120 and not line.startswith("|") and "://" not in line
    ]
    assert not wide


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_to_a_heading(name):
    here = ROOT / name
    for file, anchor in LINK.findall(prose(here.read_text(encoding="utf-8"))):
        target = here.parent / file if file else here
        assert target.exists(), f"{name}: {file}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name}: {file}#{anchor}"


def test_sections_that_code_names_exist():
    """Comments name a page of docs/, some of them with a heading: docs/privacy.md, "Noise"."""
    for folder in ("efsgd_jax", "configs", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            for page, heading in re.findall(r'docs/([\w/]+\.md)(?:, "([^"]+)")?', file.read_text(encoding="utf-8")):
                assert page in PAGES, f"{file}: {page}"
                if heading:
                    text = (DOCS / page).read_text(encoding="utf-8")
                    assert re.search(rf"^#+ {re.escape(heading)}$", text, re.M), f"{file}: {page}, {heading}"


def test_files_that_pages_name_exist():
    """A path of the package is written without efsgd_jax/, as in `privacy/noise.py`; a test without its folder."""
    for name in TEXTS:
        text = prose((ROOT / name).read_text(encoding="utf-8"))
        for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|json)|test_\w+\.py)`", text):
            places = [ROOT / path, ROOT / "efsgd_jax" / path, ROOT / "tests" / path]
            of_a_run = path.startswith(("private/", "release/"))
            assert of_a_run or any(place.is_file() for place in places), f"{name}: {path}"


def test_words_of_the_field():
    found = {name: FORBIDDEN.search((ROOT / name).read_text(encoding="utf-8")) for name in TEXTS}
    assert not {name: match.group(0) for name, match in found.items() if match}


def test_the_pages_of_config_keys_are_those_that_their_command_makes():
    made = runpy.run_path(str(DOCS / "make_config_keys.py"))["pages"]()
    committed = {page: (DOCS / page).read_text(encoding="utf-8") for page in PAGES if page.startswith("config_keys")}
    assert committed == made, "run `python docs/make_config_keys.py`"


def test_every_block_says_what_it_is():
    kinds = {kind for page in PAGES for kind, _ in blocks(page)}
    assert kinds <= {"python", "sh", "text"}


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    api = (tmp_path / "api/index.html").read_text()
    assert "Formal guarantees" in api
    assert (tmp_path / "benchmarks/results/quality.json").is_file()
