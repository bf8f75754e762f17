"""Keys of the configuration: each explained from its dataclass, misspelt ones named, and methods that change."""

import pytest

from efsgd_jax import UserError, default_config
from efsgd_jax.cli.parser import read_config, split_overrides
from efsgd_jax.cli.train import main
from efsgd_jax.config import validate
from efsgd_jax.config_keys import config_keys
from efsgd_jax.synthesizers import method_names


@pytest.mark.parametrize("method", method_names())
def test_every_key_is_explained(method):
    def names(config, prefix=""):
        for key, value in config.items():
            if key == "l2_norm_clip" or not hasattr(value, "items"):
                yield prefix + key
            else:
                yield from names(value, f"{prefix}{key}.")

    keys = config_keys(method)
    assert sorted(k.name for k in keys) == sorted(names(default_config(method)))
    assert [k.name for k in keys if not k.meaning] == []
    assert {k.name: k.default for k in keys}["train.log_every"] == default_config(method).train.log_every
    assert any(k.must_be for k in keys)


def test_help_explains_keys(capsys):
    assert main(["--help=feedback_decay"]) == 0
    assert "--config.privacy.feedback_decay  (float, default -1.0)" in capsys.readouterr().out
    assert main(["--help=num_shards", "--config.method.name", "sanitized_gan"]) == 0
    assert "Must be at least 1" in capsys.readouterr().out
    assert main(["--help=num_shards", "--config=configs/mnist.py"]) == 2
    assert "no config key of efsgd_mixture contains" in capsys.readouterr().err


def test_help_explains_presets_where_there_are_any(capsys):
    assert main(["--help=preset", "--config=configs/mixture_fmnist.py"]) == 0
    assert capsys.readouterr().out.startswith("--config.preset  (str)\n    one of quick, long: it sets several")
    assert main(["--help=preset"]) == 0
    assert "such as mixture_fmnist, mixture_mnist" in capsys.readouterr().out
    assert main(["--help=preset", "--config=configs/digits.py"]) == 2
    assert main(["--help=contrast", "--config=configs/mixture_fmnist.py"]) == 0
    assert "config.preset" not in capsys.readouterr().out


def test_help_without_a_config_has_the_keys_of_all_methods(capsys):
    assert main(["--help=pose_weight"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "; of efsgd_mixture, gaussian_mixture, " in line
    assert "sanitized_gan" not in line
    assert main(["--help=."]) == 0
    printed = capsys.readouterr().out
    assert printed.count("--config.method.name ") == 1
    assert printed.count("--config.data.path ") == 1
    for method in method_names():
        assert all(f"--config.{key.name} " in printed for key in config_keys(method))
    assert main(["--help=posy"]) == 2
    assert "no config key of any method contains 'posy'" in capsys.readouterr().err


def test_a_value_may_be_the_next_argument():
    argv = ["--config.train.seed", "-1", "--workdir", "x", "--config.a=b=c", "--config.privacy.epsilon", "1"]
    assert split_overrides(argv) == (["train.seed=-1", "a=b=c", "privacy.epsilon=1"], ["--workdir", "x"])
    with pytest.raises(UserError, match="has no value"):
        read_config(None, split_overrides(["--config.train.seed", "--workdir=x"])[0])


@pytest.mark.parametrize("config", [None, "configs/mnist.py", "configs/sanitized_mnist.py", "configs/efsgd_mnist.py"])
@pytest.mark.parametrize("method", method_names())
def test_another_method_takes_its_own_defaults(config, method):
    before = read_config(config, ["privacy.epsilon=3"])
    after = read_config(config, [f"method.name={method}", "privacy.epsilon=3"])
    validate(after)
    assert after.data == before.data
    assert (after.privacy.epsilon, after.privacy.delta) == (3, before.privacy.delta)
    if method == before.method.name:
        assert after == before
    else:
        assert after.method == default_config(method).method


def test_what_was_meant_is_named():
    with pytest.raises(UserError, match=r"did you mean 'privacy\.epsilon'"):
        read_config(None, ["privacy.epsilom=3"])
    with pytest.raises(UserError, match=r"did you mean 'method\.latent'"):
        read_config(None, ["method.latnet=3"])
    config = read_config(None, ["privacy.feedback=locl"])
    with pytest.raises(UserError, match="did you mean 'local'"):
        validate(config)
    with pytest.raises(UserError, match="did you mean 'gaussian_mixture'"):
        read_config(None, ["method.name=gausian_mixture"])
