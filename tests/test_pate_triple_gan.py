"""``pate_triple_gan``: labels that are not read have no influence, and the classifier learns from few."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from efsgd_jax import UserError, default_config, fit
from efsgd_jax.privacy.mechanism import ZERO_OUT
from efsgd_jax.privacy.subset import ADD_OR_REMOVE_ONE, REPLACE_ONE
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.pate_triple_gan.classifier import Classifier, _code, has_label, logits
from efsgd_jax.synthesizers.reranking.oriented_gradients import LONGEST, features_of
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * 255 / 16).astype(np.uint8)
LABELS = DIGITS.target.astype(np.int32)


def config_of(path, epsilon=10.0, **method):
    config = default_config("pate_triple_gan")
    config.data.update(name="npz", path=str(path), classes="10")
    config.privacy.epsilon = epsilon
    config.privacy.num_shards = 4
    config.train.update(steps=2, images_per_shard=2, trained_per_step=2)
    config.method.update(components=2, directions=8, labelled=0.3, critic_width=4, width=4, blocks=1, warm_steps=2)
    config.method.update(**method)
    return config


def write(path, labels):
    cut = 1500
    np.savez(path, x_train=IMAGES[:cut], y_train=labels[:cut], x_test=IMAGES[cut:], y_test=LABELS[cut:])
    return path


def given_labels(fraction=0.3):
    return np.asarray(jax.vmap(lambda x: has_label(x, fraction))(jnp.asarray(IMAGES)[..., None]))


def test_which_labels_are_read_follows_from_the_pixels_and_is_about_the_asked_part():
    found = given_labels()
    assert abs(found.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(found))
    order = np.random.default_rng(0).permutation(len(found))
    again = np.asarray(jax.vmap(lambda x: has_label(x, 0.3))(jnp.asarray(IMAGES[order])[..., None]))
    np.testing.assert_array_equal(again, found[order])
    assert given_labels(1.0).all()
    assert np.all(given_labels(0.1) <= found)  # nested: a smaller part is within a larger one
    by_class = np.bincount(LABELS[found], minlength=10) / np.bincount(LABELS, minlength=10)
    assert by_class.min() > 0.15


def test_a_label_that_is_not_read_has_no_influence(tmp_path):
    """With the same keys, other labels of all unlabelled images give the same release, bit by bit."""
    changed = np.where(given_labels(), LABELS, (LABELS + 3) % 10)
    assert (changed != LABELS).mean() > 0.5
    files = []
    for name, labels in (("own", LABELS), ("other", changed)):
        config = config_of(write(tmp_path / f"{name}.npz", labels))
        config.train.seed = 1
        run = fit(config, tmp_path / name, progress=False)
        files.append(Workdir(run.workdir).generator.read_bytes())
    assert files[0] == files[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pate")
    return fit(config_of(write(directory / "data.npz", LABELS)), directory / "run", progress=False)


def test_the_classifier_learns_from_few_labels(run):
    classifier = Classifier(**released_generator(Workdir(run.workdir)).params["classifier"])
    features = features_of(jnp.asarray(IMAGES[1500:], jnp.float32)[..., None] / 255)
    right = np.mean(np.argmax(logits(classifier, features), axis=1) == LABELS[1500:])
    assert right > 0.5  # of ten classes, with 450 labels at epsilon 10


def test_all_phases_compose_to_the_target(run):
    names = [p["name"] for p in run.privacy["phases"]]
    assert names[:3] == ["feature mean", "feature directions", "classifier"]
    assert names[-1] == "discriminators"
    assert 9.8 < run.epsilon <= 10
    assert run.privacy["neighbouring_relation"] == ZERO_OUT  # the weaker of the phases' two


def test_without_discriminators_no_decoder_is_published(tmp_path):
    path = write(tmp_path / "data.npz", LABELS)
    run = fit(config_of(path, discriminator_share=0.0, classifier_steps=2), tmp_path / "run", progress=False)
    params = flax.serialization.msgpack_restore(Workdir(run.workdir).generator.read_bytes())
    assert set(params) == {"mixture", "reranker", "classifier"}


@pytest.mark.parametrize(("schedule", "scoring"), [("parameter", 3), ("parameter", 10), ("independent", 1)])
def test_discriminators_compose_with_blanked_records_only_if_none_is_drawn(schedule, scoring):
    mechanism = ShardMechanism(100, 10, schedule, 1.0, judges_per_step=scoring, images_per_step=10)
    drawn = scoring < 10
    assert mechanism.neighbouring_relation is (REPLACE_ONE if drawn else ADD_OR_REMOVE_ONE)


def test_codes_have_a_bounded_norm_whatever_the_image_is():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 20)) * 10.0 ** rng.integers(-3, 6, (50, 1))
    codes = jax.vmap(lambda f: _code(jnp.ones(20), jnp.asarray(rng.normal(size=(20, 5)), jnp.float32), f))(features)
    assert np.linalg.norm(codes, axis=1).max() <= LONGEST


def test_more_shards_than_images_are_refused(tmp_path):
    config = config_of(write(tmp_path / "data.npz", LABELS))
    config.privacy.num_shards = 5000
    with pytest.raises(UserError, match=r"num_shards is 5000, but there are only N = 1500"):
        fit(config, tmp_path / "run", progress=False)
