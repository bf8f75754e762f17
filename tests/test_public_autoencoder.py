"""A warm start on public images: the autoencoder, its file, and private runs that use it."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, sample
from efsgd_jax.cli.main import main
from efsgd_jax.config import validate
from efsgd_jax.data import ImageSpec
from efsgd_jax.files import read_json
from efsgd_jax.runs import pretrain as pretraining
from efsgd_jax.runs.pretrain import pretrain
from efsgd_jax.runs.release import pack
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.public_autoencoder import decode, encode
from efsgd_jax.training.public_data import load_public

SPEC = ImageSpec(16, 3, 2)
SMALL = {"autoencoder_width": 8, "autoencoder_channels": 4, "autoencoder_steps": 60}
PUBLIC, PRIVATE = 200, 120


def smooth(n, seed):
    """Images of random colours and slopes, uint8 ``[n, 16, 16, 3]``."""
    rng = np.random.default_rng(seed)
    slopes = rng.uniform(-6, 6, (n, 1, 1, 1, 2))
    places = np.stack(np.meshgrid(*[np.arange(16) - 8] * 2), axis=-1)[None, :, :, None]
    return np.clip(rng.uniform(90, 160, (n, 1, 1, 3)) + (slopes * places).sum(-1), 0, 255).astype(np.uint8)


def write(path, n, seed):
    x, y = smooth(n, seed), np.arange(n) % 2
    np.savez(path, x_train=x[:-10], y_train=y[:-10], x_test=x[-10:], y_test=y[-10:], class_names=["light", "dark"])
    return str(path)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A private run on codes."""
    directory = tmp_path_factory.mktemp("images")
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=write(directory / "private.npz", PRIVATE, 0), image_size=16, channels=3)
    config.public.update(name="npz", path=write(directory / "public.npz", PUBLIC, 1))
    config.privacy.delta = 1e-3
    config.method.update(components=1, directions=4, candidates=1, mean_clip=3.0, deviation_clip=3.0, **SMALL)
    return config


@pytest.fixture(scope="module")
def weights(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "public.msgpack"
    pretrain(config, path, progress=False)
    return path


def with_weights(config, weights):
    changed = config.copy_and_resolve_references()
    changed.public.update(path="", weights=str(weights))
    return changed


@pytest.mark.slow
def test_images_come_back_from_codes_of_unit_variance(config, tmp_path):
    longer = {"autoencoder_width": 16, "autoencoder_channels": 8, "autoencoder_steps": 200}
    config = config.copy_and_resolve_references()
    config.method.update(longer)
    pretrain(config, tmp_path / "a", progress=False)
    options, found = Hyperparameters(**longer), flax.serialization.msgpack_restore((tmp_path / "a").read_bytes())
    images = jnp.asarray(smooth(100, 2))
    codes = jax.vmap(lambda x: encode(found, x, options))(images)
    assert codes.shape == (100, 32)
    assert np.all(np.abs(np.mean(codes, axis=0)) < 0.5)
    np.testing.assert_allclose(np.std(codes, axis=0), 1.0, atol=0.4)
    rebuilt = jax.vmap(lambda z: decode(found, z, SPEC, options))(codes)
    error, variance = np.mean((rebuilt - images / 255.0) ** 2), np.var(images / 255.0)
    assert error < 0.4 * variance


@pytest.mark.slow
def test_a_pre_training_that_was_stopped_goes_on_where_it_was(config, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "KEPT_EVERY", 20)
    steps_of = pretraining.steps_of

    def stopping(*args, **options):
        for row in steps_of(*args, **options):
            yield row
            if row.step == 40:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "steps_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()
    starts = []
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "steps_of", lambda *a, **o: starts.append(o["start"]) or steps_of(*a, **o))
        pretrain(config, tmp_path / "a", progress=False)
    assert starts == [40]
    assert (tmp_path / "a").read_bytes() == weights.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_private_run_with_weights_says_so_and_keeps_paths_to_itself(config, weights, tmp_path):
    run = tmp_path / "run"
    result = fit(with_weights(config, weights), run, progress=False)
    assert result.privacy["public"]["pre_training"].startswith("weights, SHA-256 ")
    assert [p["name"] for p in result.privacy["phases"]] == ["class means", "basis", "moments"]
    assert "A network was pre-trained on public data: weights" in (run / "release/PRIVACY.md").read_text()
    assert read_json(run / "release/config.json")["config"]["public"] == {"name": "npz"}
    assert "generator.msgpack" in pack(run, tmp_path / "release.zip")
    sample(run, 6, out=tmp_path / "samples")


@pytest.mark.slow
def test_a_run_that_pre_trains_itself_spends_as_much_as_one_with_weights(config, weights, tmp_path):
    within, given = (
        fit(c, tmp_path / n, progress=False) for c, n in ((config, "a"), (with_weights(config, weights), "b"))
    )
    assert within.privacy["public"]["pre_training"].startswith(f"{PUBLIC} images, SHA-256 ")
    assert within.privacy["epsilon"] == given.privacy["epsilon"]
    assert [p["name"] for p in within.privacy["phases"]] == [p["name"] for p in given.privacy["phases"]]


def test_the_command_writes_a_file_and_its_hash(config, tmp_path, capsys, monkeypatch):
    flags = [f"--config.method.{k}={v}" for k, v in {**SMALL, "autoencoder_steps": 2}.items()]
    flags += ["--config.public.name=npz", f"--config.public.path={config.public.path}", "--config.data.image_size=16"]
    command = ["pretrain", "--config=configs/folder_public.py", f"--out={tmp_path / 'a'}", *flags]
    assert main(command) == 0
    assert "SHA-256  " in capsys.readouterr().out
    assert main(command) == 2
    assert f"{tmp_path / 'a'} exists; name a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\x00\x01 no weights", "is no file of weights"),
        (flax.serialization.to_bytes({"params": np.zeros(3)}), "has weights of other shapes"),
    ],
)
def test_files_that_are_no_weights_are_refused(config, tmp_path, content, words):
    path = tmp_path / "a.msgpack"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        fit(with_weights(config, path), tmp_path / "run", progress=False)


def test_weights_that_are_not_finite_are_refused(config, weights, tmp_path):
    found = flax.serialization.msgpack_restore(weights.read_bytes())
    found["mean"] = np.full_like(found["mean"], np.nan)
    (tmp_path / "a").write_bytes(flax.serialization.to_bytes(found))
    with pytest.raises(UserError, match="has NaN or infinity"):
        fit(with_weights(config, tmp_path / "a"), tmp_path / "run", progress=False)


def test_public_images_and_a_network_for_them_belong_together(config, tmp_path):
    changed = config.copy_and_resolve_references()
    changed.method.autoencoder_width = 0
    with pytest.raises(UserError, match=r"config\.public\.path .* must be empty without method\.autoencoder_width"):
        validate(changed)
    changed = config.copy_and_resolve_references()
    changed.public.path = ""
    with pytest.raises(UserError, match="there are no public images to train the autoencoder on"):
        load_public(changed, SPEC)
    with pytest.raises(UserError, match="nothing to pre-train"):
        pretrain(changed, tmp_path / "a", progress=False)
    changed.public.path = changed.data.path
    with pytest.raises(UserError, match=r"is also config\.data\.path: what is learned from public images is"):
        load_public(changed, SPEC)
    changed.public.path = ""
    changed.method.low_pass = 8
    with pytest.raises(UserError, match=r"config\.method\.low_pass is 8; it must be .*0 with autoencoder_width"):
        validate(changed)
    changed = config.copy_and_resolve_references()
    changed.method.autoencoder_channels = 2000
    with pytest.raises(UserError, match=r"8000 numbers, .* set --config\.method\.autoencoder_channels=4 or"):
        fit(changed, tmp_path / "run", progress=False)
    changed = config.copy_and_resolve_references()
    changed.data.image_size = 12
    with pytest.raises(UserError, match=r"a multiple of 8, not 12; set --config\.data\.image_size=16"):
        fit(changed, tmp_path / "run", progress=False)
