"""The README's loop, as printed there, learns with a Flax model and with a Haiku model."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

from efsgd_jax import load_dataset

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def loop():
    code = re.search(r"<!-- tested by tests/test_readme.py -->\n```python\n(.*?)```", README, re.S).group(1)
    assert len(re.findall(r"^(?!\s*$)", code.split("def train")[1], re.M)) <= 20
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("library", ["flax", "haiku"])
def test_the_loop_learns(loop, library):
    data = load_dataset("digits")
    x = jnp.asarray(data.train_images.reshape(-1, 64)[:512] / 255.0)
    y = jnp.asarray(data.train_labels[:512])
    model, params = loop[f"{library}_model"], loop[f"{library}_params"]
    trained = loop["train"](model.apply, params, x, y)
    accuracy = float(jnp.mean(jnp.argmax(model.apply(trained, x), -1) == y))
    assert accuracy > 0.8


def test_every_relative_link_and_recipe_exists():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(r"configs/\w+\.py", README):
        assert (root / target).is_file(), target
