"""Configs: each loads and is valid; some follow the epsilon and the preset that the command line asks for."""

import tomllib
from pathlib import Path

import pytest

from efsgd_jax import UserError, load_config
from efsgd_jax.cli.parser import read_config
from efsgd_jax.config import packaged_configs, validate

CONFIGS = sorted(Path("configs").glob("*.py"))
PRESETS = """
from efsgd_jax import UserError, default_config

def get_config(preset="quick"):
    if preset not in ("quick", "long"):
        raise UserError(f"preset {preset!r} is unknown; use quick or long")
    config = default_config()
    config.train.steps = {"quick": 7, "long": 70}[preset]
    return config
"""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_and_takes_an_epsilon(path):
    validate(load_config(path))
    config = read_config(str(path), ["privacy.epsilon=1.5"])
    validate(config)
    assert config.privacy.epsilon == 1.5


def test_configs_come_with_the_package():
    assert packaged_configs() == [path.stem for path in CONFIGS]
    assert load_config("preset:fmnist", epsilon=1.0) == load_config("configs/fmnist.py", epsilon=1.0)
    for bad, words in (
        ("preset:fmnis", "did you mean 'fmnist'"),
        ("preset:../setup", "no config"),
        ("x.py", "preset:NAME"),
    ):
        with pytest.raises(UserError, match=words):
            load_config(bad)


def test_the_packages_that_are_built_are_those_that_exist():
    listed = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.parts) for p in Path("efsgd_jax").rglob("__init__.py")} | {"efsgd_jax.presets"}
    assert sorted(found) == listed


@pytest.mark.parametrize("path", ["configs/mixture_mnist.py", "configs/mixture_fmnist.py"])
def test_the_configs_are_presets_of_one_configuration(path):
    quick, long = (read_config(path, [f"preset={p}", "privacy.epsilon=1"]) for p in ("quick", "long"))
    assert (quick.method.candidates, long.method.candidates) == (1, 8)
    with quick.unlocked():
        quick.method.candidates = 8
    assert quick == long
    assert read_config(path, ["privacy.epsilon=1"]).method.candidates == (1 if "fmnist" not in path else 8)
    with pytest.raises(UserError, match="no preset 'slow'; use one of quick, long"):
        read_config(path, ["preset=slow"])


@pytest.mark.parametrize("name", ["mnist", "fmnist", "mixture_mnist", "mixture_fmnist"])
def test_a_mixture_has_fewer_components_where_noise_is_larger(name):
    path = f"configs/{name}.py"
    large, small = load_config(path), read_config(path, ["privacy.epsilon=1"])
    assert small.method.components < large.method.components
    assert large.privacy.epsilon == 10
    # What the command line says of the method itself is said last.
    chosen = read_config(path, ["method.components=4", "privacy.epsilon=1"])
    assert chosen.method.components == 4


def test_presets_are_those_of_the_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PRESETS)
    assert load_config(path).train.steps == 7
    assert read_config(str(path), ["preset=long"]).train.steps == 70
    assert read_config(str(path), ["train.steps=8", "preset=long"]).train.steps == 8
    with pytest.raises(UserError, match="preset 'slow' is unknown"):
        read_config(str(path), ["preset=slow"])
    with pytest.raises(UserError, match="no presets"):
        read_config("configs/digits.py", ["preset=long"])
    with pytest.raises(UserError, match="needs a config"):
        read_config(None, ["preset=long"])
