"""The documentation: its site builds without a warning, and every block of code on it runs as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import load_dataset
from efsgd_jax.data.resize import resize_square

ROOT = Path(__file__).parents[1]
PAGES = sorted(p.name for p in (ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


def blocks(page):
    return FENCE.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


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


SLOW = ("data_owners.md", "recipes.md")
WITH_CODE = [p for p in PAGES if any(kind in ("python", "sh") for kind, _ in blocks(p))]


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
