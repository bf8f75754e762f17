"""A release is packed only as training wrote it; every kind of leak is refused by name."""

import json
import shutil
import stat
import zipfile

import flax.serialization
import jax
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from efsgd_jax import UserError, default_config, fit, load_dataset
from efsgd_jax.cli.release import main as publish
from efsgd_jax.images import class_grid, save_grid
from efsgd_jax.runs.release import pack

FILES = ["PRIVACY.md", "config.json", "generator.msgpack", "privacy.json", "samples.png"]


pytestmark = pytest.mark.usefixtures("training_epsilon_computed_once")


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run.workdir, tmp_path / "run")


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=2) + "\n")


def edit_weights(run, change):
    path = run / "release/generator.msgpack"
    params = flax.serialization.msgpack_restore(path.read_bytes())
    path.write_bytes(flax.serialization.to_bytes(change(params)))


def key_words(run):
    return np.array(json.loads((run / "private/key.json").read_text()), np.uint32)


def test_an_honest_release_is_packed_and_can_be_used(finished_run, tmp_path, capsys):
    out = tmp_path / "out.zip"
    assert publish([str(finished_run.workdir), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "generator.msgpack" in printed
    assert "A person in several images is protected less" in printed
    assert "A person in several images is protected less" in (finished_run.workdir / "release/PRIVACY.md").read_text()
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == FILES
        assert archive.read("privacy.json") == (finished_run.workdir / "release/privacy.json").read_bytes()
    assert publish([str(finished_run.workdir), str(out)]) == 2
    assert "exists" in capsys.readouterr().err


def extra(name):
    def leak(run):
        (run / "release" / name).write_text("{}")

    return leak


def a_link(run):
    (run / "release/samples.png").unlink()
    (run / "release/samples.png").symlink_to(run / "private/grids/000006.png")


def real_images(run):
    data = load_dataset("digits")
    save_grid(run / "release/samples.png", class_grid(data.train_images, data.train_labels, 10))


def one_real_image_among_many(run):
    with Image.open(run / "release/samples.png") as image:
        pixels = np.array(image)
    pixels[:64, :64] = np.kron(load_dataset("digits").train_images[0, ..., 0], np.ones((8, 8))).astype(np.uint8)
    Image.fromarray(pixels).save(run / "release/samples.png")


def text_in_the_image(run):
    info = PngImagePlugin.PngInfo()
    info.add_text("scores", "0.89")
    with Image.open(run / "release/samples.png") as image:
        image.load()
    image.save(run / "release/samples.png", pnginfo=info)


def bytes_behind_the_image(run):
    path = run / "release/samples.png"
    path.write_bytes(path.read_bytes() + b"more")


def hidden_residual(run):
    edit_weights(run, lambda p: {**p, "residual": jax.tree.map(np.zeros_like, p["params"])})


def raw_discriminator(run):
    edit_weights(run, lambda p: {"params": {"Dense_0": {"kernel": np.zeros((4, 4), np.float32)}}})


def bytes_behind_the_weights(run):
    path = run / "release/generator.msgpack"
    path.write_bytes(path.read_bytes() + b"more")


def other_weights_of_the_same_shape(run):
    edit_weights(run, lambda p: jax.tree.map(lambda x: x + 1e-6, p))


def key_in_the_weights(run):
    words = key_words(run)

    def change(params):
        leaves, tree = jax.tree.flatten(params)
        big = max(range(len(leaves)), key=lambda i: leaves[i].size)
        leaves[big] = np.array(leaves[big])
        leaves[big].reshape(-1)[:2] = words.view(np.float32)
        return jax.tree.unflatten(tree, leaves)

    edit_weights(run, change)


def key_in_the_configuration(run):
    words = [int(w) for w in key_words(run)]
    edit_json(run / "release/config.json", lambda c: c["config"]["data"].update(attribute=f"{words[0]}-{words[1]}"))


def config(change):
    return lambda run: edit_json(run / "release/config.json", lambda c: change(c["config"]))


def report(**changes):
    return lambda run: edit_json(run / "release/privacy.json", lambda r: r.update(changes))


def phase_of_report(**changes):
    return lambda run: edit_json(run / "release/privacy.json", lambda r: r["phases"][0].update(changes))


def parameter_of_report(**changes):
    def change(r):
        r["phases"][0]["mechanism_parameters"].update(changes)

    return lambda run: edit_json(run / "release/privacy.json", change)


def a_seed_that_the_report_hides(run):
    edit_json(run / "private/run.json", lambda r: r["config"]["train"].update(seed=3))


def quieter_report(run):
    (run / "release/PRIVACY.md").write_text("# (0.1, 1e-05)-differential privacy\n")


@pytest.mark.parametrize(
    ("leak", "file", "reason"),
    [
        (extra("scores.json"), "scores.json", "does not belong"),
        (extra("discriminator.msgpack"), "discriminator.msgpack", "does not belong"),
        (extra("key.json"), "key.json", "does not belong"),
        (extra(".hidden"), ".hidden", "does not belong"),
        (a_link, "samples.png", "does not belong"),
        (real_images, "samples.png", "may be real"),
        (one_real_image_among_many, "samples.png", "may be real"),
        (text_in_the_image, "samples.png", "more than its pixels"),
        (bytes_behind_the_image, "samples.png", "more than its pixels"),
        (hidden_residual, "generator.msgpack", "something else than"),
        (raw_discriminator, "generator.msgpack", "something else than"),
        (bytes_behind_the_weights, "generator.msgpack", ""),
        (other_weights_of_the_same_shape, "generator.msgpack", "not what training wrote"),
        (key_in_the_weights, "generator.msgpack", "secret key"),
        (key_in_the_configuration, "config.json", ""),
        (config(lambda c: c["train"].update(seed=3)), "config.json", "train.seed"),
        (config(lambda c: c["data"].update(path="/home/me")), "config.json", "data.path"),
        (config(lambda c: c.update(scores={"gen2real": 0.9})), "config.json", "scores"),
        (config(lambda c: c["train"].update(steps=5)), "config.json", "not the configuration"),
        (report(gen2real=0.9), "privacy.json", "gen2real"),
        (report(epsilon=1.0), "privacy.json", "its mechanism spends"),
        (report(steps=3), "privacy.json", "counts 3 steps"),
        (report(epsilon=11.0), "PRIVACY.md", "does not say"),
        (phase_of_report(name="another"), "privacy.json", "has others"),
        (parameter_of_report(sampling_probability=0.001), "privacy.json", "the run's configuration says"),
        (parameter_of_report(note="a record"), "privacy.json", "another mechanism"),
        (report(guarantee=False, reason_for_no_guarantee="it was late"), "privacy.json", "no guarantee"),
        (a_seed_that_the_report_hides, "privacy.json", "train.seed was set"),
        (quieter_report, "PRIVACY.md", "does not say"),
    ],
)  # fmt: skip
def test_leaks_are_refused(run, tmp_path, capsys, leak, file, reason):
    leak(run)
    out = tmp_path / "out.zip"
    assert publish([str(run), str(out)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: not released: ")
    assert f"release/{file} " in message
    assert reason in message
    assert message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("part", ["private/run.json", "private/released.json", "release/generator.msgpack"])
def test_what_cannot_be_checked_is_refused(run, tmp_path, part):
    (run / part).unlink()
    with pytest.raises(UserError, match=r"cannot be checked|no finished run"):
        pack(run, tmp_path / "out.zip")


@pytest.mark.parametrize(
    "keys",
    [{"train": {"seed": 1}}, pytest.param({"privacy": {"epsilon": float("inf")}}, marks=pytest.mark.slow)],
    ids=["seed", "inf"],
)
def test_runs_without_a_guarantee_say_so_everywhere_and_are_refused(tmp_path, capsys, keys):
    config = default_config("gaussian_mixture")
    config.method.update(components=1, directions=5, candidates=1, cluster_steps=1, reranker_steps=1)
    for group, values in keys.items():
        config[group].update(values)
    result = fit(config, tmp_path / "run", progress=False)
    assert (result.workdir / "release/PRIVACY.md").read_text().splitlines()[0].startswith("# NOT PRIVATE")
    assert next(iter(json.loads((result.workdir / "release/privacy.json").read_text()).items())) == ("guarantee", False)
    if "train" in keys:
        assert "NO privacy guarantee" in capsys.readouterr().err
    with pytest.raises(UserError, match="no guarantee"):
        pack(result.workdir, tmp_path / "out.zip")


def test_everything_private_is_for_its_owner_only(finished_run):
    private = finished_run.workdir / "private"
    for path in [private, *private.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
