"""Runs with config.privacy.region: what they may depend on, what their reports say, and who refuses it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, load_dataset
from efsgd_jax.audit.canaries import audit_run
from efsgd_jax.audit.membership import audit_release
from efsgd_jax.cli.release import main as release
from efsgd_jax.evaluation.release_score import release_score
from efsgd_jax.files import read_json, write_json
from efsgd_jax.privacy import DpSgdMechanism, box, fresh_key, gradient_access
from efsgd_jax.privacy.region_fill import interpolated
from efsgd_jax.privacy.region_records import Regions
from efsgd_jax.reports import report
from efsgd_jax.runs.release import pack
from efsgd_jax.training.setup import bind, dataset_of
from efsgd_jax.training.update import Inputs, take_step
from efsgd_jax.training.views import records_in_memory

REGION, LEVELS = "2,2,4,4", "Region-level only. Person-level: none. Image-level: none."


def config_of(method="born_machine", **privacy):
    config = default_config(method)
    config.privacy.update({"epsilon": 1.0, "region": REGION, **privacy})
    config.train.steps = 3
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("region") / "run"
    return workdir, fit(config_of(), workdir, progress=False)


@pytest.fixture(scope="module")
def setup():
    config = config_of()
    return bind(config, dataset_of(config))


def one_step(setup, images):
    """What one step of the only phase makes of the data with other images: its state, without the residual."""
    (phase,) = setup.phases
    changed = setup._replace(dataset=setup.dataset.__class__(**{**vars(setup.dataset), "train_images": images}))
    records = records_in_memory(changed, phase.view, {}, None)
    assert isinstance(records, Regions)
    state = phase.init(jax.random.key(0), {})
    inputs = Inputs(jax.random.key(1), jax.random.key(2), records, {})
    state, _ = jax.jit(lambda s, i: take_step(phase, s, i, jnp.int32(0)))(state, inputs)
    return phase.release(state)


def test_without_the_noised_sum_nothing_depends_on_the_region(setup, monkeypatch):
    """With what the mechanism releases replaced by zeros, a step is the same bit by bit; outside it is not."""
    sound = DpSgdMechanism.unchecked_transform

    def silent(self, key):
        transform = sound(self, key)

        def update(*args, **options):
            mean, state = transform.update(*args, **options)
            return jax.tree.map(jnp.zeros_like, mean), state

        return transform._replace(update=update)

    monkeypatch.setattr(DpSgdMechanism, "unchecked_transform", silent)
    images = setup.dataset.train_images
    mask = box(8, 2, 2, 4, 4)
    other = np.random.default_rng(0).integers(256, size=images.shape, dtype=np.uint8)
    want = one_step(setup, images)
    for kept, same in ((~mask, True), (mask, False)):
        got = one_step(setup, np.where(kept, images, other))
        equal = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True)]
        assert all(equal) == same


def test_no_region_decides_which_part_an_image_is_in(tmp_path):
    """By its own bytes an image would move into or out of the public gradient, and change the published number."""
    digits = load_dataset("digits")
    images = np.concatenate([digits.train_images, digits.test_images])[:300]
    labels = np.arange(300) % 10
    mask = box(8, 2, 2, 4, 4)
    for name, x in (("one", images), ("other", np.where(mask, 0, images))):
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=labels)

    def loaded(name, **privacy):
        config = config_of(**privacy)
        config.data.update(name="npz", path=str(tmp_path / f"{name}.npz"), classes="10")
        return dataset_of(config)

    one, other = loaded("one"), loaded("other")
    assert 30 < len(one.test_labels) < 90
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(one, f"{part}_labels"), getattr(other, f"{part}_labels"))
        before, after = (np.where(mask, 0, getattr(x, f"{part}_images")) for x in (one, other))
        np.testing.assert_array_equal(before, after)
    by_bytes = [len(loaded(name, region="").test_labels) for name in ("one", "other")]
    assert by_bytes[0] != by_bytes[1]


def test_public_rows_are_not_those_that_were_sampled(setup):
    """The gradient without noise is of a batch of its own: it must not show who was sampled."""
    n = setup.dataset.num_units
    mechanism = setup.phases[0].plan.mechanism
    taken = []

    def recorded(records, rows):
        taken.append(np.asarray(rows))
        return jax.tree.map(lambda x: x[rows], records)

    records = Regions(jnp.arange(1.0, n + 1), jnp.zeros(n), jnp.ones(n, bool))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_access, "rows_of", recorded)
        access = mechanism.open(records, fresh_key(), jnp.int32(0))
        access.clipped_gradient(lambda w, x, key: (w * x, {}), jnp.zeros(()), ())
    sampled, public = taken
    assert len(public) == round(mechanism.expected_batch_size)
    assert len(set(sampled[: len(public)]) & set(public)) < len(public) / 2


def test_a_step_is_the_clipped_difference_and_the_public_gradient():
    """Without noise and with all records sampled, by hand."""
    whole, blanked = jnp.array([5.0, 1.0, 0.5, 9.0]), jnp.ones(4)
    records = Regions(whole, blanked, whole != blanked)
    mechanism = DpSgdMechanism(4, 1.0, 4, 0.0, l2_norm_clip=2.0)
    access = mechanism.open(records, fresh_key(), jnp.int32(0))
    gradient, _ = access.clipped_gradient(lambda w, x, key: (w * x, {"x": x}), jnp.zeros(()), ())
    assert float(gradient) == pytest.approx((2.0 + 0.0 - 0.5 + 2.0) / 4 + 1.0, abs=1e-4)
    assert len(access.recorded) == 1


def test_the_report_names_the_unit_and_what_has_none(run):
    workdir, result = run
    privacy = result.privacy
    assert privacy["unit"] == "the pixels of one image inside the region"
    assert privacy["neighbouring_relation"].startswith("zero-out one region: ")
    assert privacy["public"]["region"] == REGION
    assert privacy["caveats"][0].startswith(LEVELS)
    assert "if they are resized, pixels of the originals mix over its edge" in privacy["caveats"][0]
    text = (workdir / "release" / "PRIVACY.md").read_text(encoding="utf-8")
    assert text.splitlines()[0].endswith("-differential privacy for a region of each image")
    assert text.splitlines()[2] == f"**{LEVELS}**"
    assert "all pixels outside of the region (4x4 pixels, from row 2 and column 2, counted from 0)" in text
    assert "one image with its label" not in text
    page = report(workdir).read_text(encoding="utf-8")
    assert "regions of images, not images" in page
    assert LEVELS in page


def test_it_is_released_with_these_words_and_no_others(run, tmp_path, capsys):
    workdir, _ = run
    release([str(workdir), str(tmp_path / "run.zip")])
    printed = capsys.readouterr().out
    assert "for the pixels of one image inside the region" in printed
    assert LEVELS in printed
    path = workdir / "release" / "privacy.json"
    honest = read_json(path)
    write_json(path, {**honest, "public": {**honest["public"], "region": "0,0,1,1"}})
    with pytest.raises(UserError, match=r"PRIVACY\.md does not say what"):
        pack(workdir, tmp_path / "another.zip")
    write_json(path, honest)


def test_what_is_about_whole_images_is_refused(run):
    workdir, _ = run
    with pytest.raises(UserError, match="whole test images"):
        release_score(workdir, "gen2real.logistic_regression", 0.1)
    with pytest.raises(UserError, match="not who is in the data"):
        audit_release(workdir)
    with pytest.raises(UserError, match="canaries are whole images"):
        audit_run(config_of(), canaries=20)


@pytest.mark.parametrize(
    ("method", "privacy", "message"),
    [
        ("gaussian_mixture", {}, r"the phase .* of gaussian_mixture reads statistics of whole images"),
        ("private_diffusion", {}, "reads statistics of whole images"),
        ("sanitized_gan", {"allow_unproven": False}, "reads statistics of whole images"),
        ("born_machine", {"region": "2,2,4"}, "it must be top,left,height,width"),
        ("born_machine", {"region": "2,2,0,4"}, "it must be top,left,height,width"),
        ("born_machine", {"region": "0,0,8,8"}, "the region is the whole image"),
        ("born_machine", {"region": "5,5,4,4"}, "not within images of 8x8"),
        (
            "born_machine",
            {"feedback": "local", "feedback_l2_norm_clip": 1.0},
            "feedback is local; it must be none with privacy.region",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_training(method, privacy, message, tmp_path):
    config = default_config(method)
    config.privacy.update(
        {"epsilon": 1.0, "region": REGION, **{k: v for k, v in privacy.items() if k in config.privacy}}
    )
    with pytest.raises(UserError, match=message) as error:
        fit(config, tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_interpolation_is_of_the_pixels_around_alone():
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.integers(256, size=(5, 8, 8, 3), dtype=np.uint8))
    mask = jnp.asarray(box(8, 2, 0, 4, 4))
    filled = interpolated(images, mask)
    np.testing.assert_array_equal(jnp.where(mask, 0, filled), jnp.where(mask, 0, images))
    np.testing.assert_array_equal(interpolated(jnp.where(mask, 255 - images, images), mask), filled)
    flat = jnp.where(mask, images, jnp.uint8(77))
    np.testing.assert_array_equal(interpolated(flat, mask), jnp.full_like(images, 77))
