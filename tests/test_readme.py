"""The README's loop, as printed there, learns with a Flax model and with a Haiku model."""

import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from efsgd_jax import load_dataset
from efsgd_jax.privacy import clip_and_sum

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def loop():
    first, second = re.findall(r"<!-- tested by tests/test_readme.py -->\n```python\n(.*?)```", README, re.S)
    assert len(re.findall(r"^(?!\s*$)", first.split("def train")[1], re.M)) <= 20
    names = {}
    for code in (first, second):
        exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("library", ["flax", pytest.param("haiku", marks=pytest.mark.slow)])
def test_the_loop_learns(loop, library):
    data = load_dataset("digits")
    x = jnp.asarray(data.train_images.reshape(-1, 64)[:512] / 255.0)
    y = jnp.asarray(data.train_labels[:512])
    model, params = loop[f"{library}_model"], loop[f"{library}_params"]
    trained = loop["train"](model.apply, params, x, y)
    accuracy = float(jnp.mean(jnp.argmax(model.apply(trained, x), -1) == y))
    assert accuracy > 0.8


@pytest.mark.parametrize("library", ["flax", "haiku"])
def test_the_clipped_sums_are_those_of_per_example_gradients(loop, library, capsys):
    x, y = jax.random.normal(jax.random.key(0), (70, 64)), jnp.arange(70) % 10
    model, params = loop[f"{library}_model"], loop[f"{library}_params"]

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y)

    want = clip_and_sum(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(params, x, y), 1.0)
    got = loop["clipped_sums"](model.apply, params, x, y, jax.random.key(1))
    chex.assert_trees_all_close(got.clipped_sum, want.clipped_sum, rtol=1e-4, atol=1e-5)
    assert "outer product" in capsys.readouterr().out


def test_every_relative_link_and_config_exists():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(r"configs/\w+\.py", README):
        assert (root / target).is_file(), target
