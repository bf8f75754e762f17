"""The Gaussian mixture: its distribution against closed forms, its fit against a known one, and whole runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, evaluate, fit, report, sample
from efsgd_jax.cli.release import main as publish
from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.gaussian_mixture import fit as mixture_fit
from efsgd_jax.synthesizers.gaussian_mixture.fit import Vector, fit_phases
from efsgd_jax.synthesizers.gaussian_mixture.method import make_generate, phases
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters, budget_shares
from efsgd_jax.synthesizers.gaussian_mixture.rejection import accepted_images
from efsgd_jax.synthesizers.reranking.oriented_gradients import features_of, num_features
from efsgd_jax.training.update import Inputs, keys_of_phase, make_update


def some_mixture(key, k=2, m=3, d=2, pixels=5):
    a, b, c, e, f = jax.random.split(key, 5)
    basis, _ = jnp.linalg.qr(jax.random.normal(a, (pixels, d)))
    axes, _ = jnp.linalg.qr(jax.random.normal(b, (k, m, d, d)))
    return Mixture(
        means=jax.random.normal(c, (k, pixels)),
        basis=basis,
        weights=jax.nn.softmax(jax.random.normal(e, (k, m))),
        centres=jax.random.normal(f, (k, m, d)),
        axes=axes,
        variances=jnp.abs(jax.random.normal(e, (k, m, d))) + 0.1,
    )


def covariance(mixture, label, j):
    axes = mixture.basis @ mixture.axes[label, j]
    return (axes * mixture.variances[label, j]) @ axes.T


def test_draws_have_the_moments_of_the_mixture():
    mixture = some_mixture(jax.random.key(3))
    x = jax.vmap(lambda k: draw(mixture, k, jnp.array(1)))(jax.random.split(jax.random.key(4), 40_000))
    centre = mixture.weights[1] @ mixture.centres[1]
    np.testing.assert_allclose(jnp.mean(x, 0), mixture.means[1] + mixture.basis @ centre, atol=0.05)
    spread = sum(
        mixture.weights[1, j]
        * (
            (mixture.axes[1, j] * mixture.variances[1, j]) @ mixture.axes[1, j].T
            + jnp.outer(mixture.centres[1, j] - centre, mixture.centres[1, j] - centre)
        )
        for j in range(3)
    )
    np.testing.assert_allclose(np.cov(x.T), mixture.basis @ spread @ mixture.basis.T, atol=0.1)


def run_phases(made, rows):
    """What the phases release; ``rows`` are of all records, or those of each phase."""
    released = {}
    for i, phase in enumerate(made):
        keys = keys_of_phase(jax.random.key(0), i)
        inputs = Inputs(keys.access, keys.step, rows[i] if isinstance(rows, list) else rows, released)
        state, update = jax.jit(phase.init)(keys.init, released), make_update(phase)
        for t in range(phase.plan.steps):
            state, _ = update(state, jnp.int32(t), inputs)
        released[phase.name] = phase.release(state)
    return released


def plan_of(hp, n, sigma):
    return [
        PlannedPhase(name, FullBatchMechanism(n, sigma, share, steps), steps)
        for name, (share, steps) in budget_shares(hp).items()
    ]


def fitted(x, labels, sigma, hp, monkeypatch):
    """A mixture of vectors that are no images."""
    monkeypatch.setattr(mixture_fit, "vector_size", lambda spec, hp: x.shape[1])
    plan = {p.name: p for p in plan_of(hp, len(x), sigma)}
    return run_phases(fit_phases(ImageSpec(8, 1, 2), hp, plan), Vector(x, labels))["moments"]


def test_without_noise_the_moments_of_the_vectors_come_back(monkeypatch):
    """Of Gaussian vectors inside of the clip norms; a few lie outside of the radius: a bit less spread."""
    key = jax.random.key(0)
    directions, _ = jnp.linalg.qr(jax.random.normal(key, (36, 12)))
    labels = jnp.arange(6000) % 2
    x = 0.5 + 0.1 * (2 * labels[:, None] - 1) * directions[:, 0]
    x = x + 0.1 * jax.random.normal(jax.random.key(1), (6000, 12)) * jnp.linspace(1.0, 0.5, 12) @ directions.T
    hp = Hyperparameters(components=1, directions=12, mean_clip=10.0, deviation_clip=10.0, candidates=1)
    mixture = fitted(x, labels, 0.0, hp, monkeypatch)
    for y in (0, 1):
        of_class = x[labels == y]
        centre = mixture.means[y] + mixture.basis @ mixture.centres[y, 0]
        np.testing.assert_allclose(centre, of_class.mean(0), atol=0.01)
        found, wanted = np.asarray(covariance(mixture, y, 0)), np.cov(of_class.T)
        assert 0.9 < np.trace(found) / np.trace(wanted) <= 1.01
        assert np.linalg.norm(found - wanted) < 0.12 * np.linalg.norm(wanted)


@pytest.mark.parametrize("components", [1, 3])
def test_where_noise_leaves_no_direction_in_sight_the_mixture_is_of_finite_means(components, monkeypatch):
    x = jax.random.uniform(jax.random.key(0), (60, 9))
    hp = Hyperparameters(components=components, directions=4, candidates=1)
    mixture = fitted(x, jnp.arange(60) % 2, 500.0, hp, monkeypatch)
    assert not np.any(mixture.basis)
    assert all(np.isfinite(leaf).all() for leaf in mixture)
    np.testing.assert_allclose(draw(mixture, jax.random.key(2), jnp.array(1)), mixture.means[1])


@pytest.mark.slow
def test_the_reranker_moves_draws_towards_images_of_their_class():
    """With more candidates, and if the class has to be the most likely one, more images are such as the reranker names
    so."""
    from efsgd_jax import load_dataset
    from efsgd_jax.synthesizers.reranking.logistic import log_probabilities

    data = load_dataset("digits")
    spec, n = data.spec, len(data.train_labels)
    hp = Hyperparameters(components=1, directions=20)
    made = phases(spec, hp, plan_of(hp, n, 0.5))
    everything = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
    params = run_phases(made, [jax.jit(jax.vmap(lambda r, p=p: p.view(r, {})))(everything) for p in made])["moments"]
    labels, found = jnp.arange(500) % 10, []
    for candidates, acceptance in ((2, "probability"), (8, "probability"), (8, "most_likely")):
        changed = dataclasses.replace(hp, candidates=candidates, acceptance=acceptance)
        generate = make_generate(spec, changed)
        images = jax.jit(generate)(params, jax.random.key(2), labels)
        assert images.shape == (500, 8, 8, 1)
        assert float(jnp.max(jnp.abs(images))) <= 1
        features = jax.jit(lambda x: features_of(x))((images + 1) / 2)
        named = jnp.argmax(log_probabilities(params["reranker"], features), 1)
        found.append(float(jnp.mean(named == labels)))
    assert found[2] > found[1] > found[0] > 0.5


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_features_have_one_length(shape):
    images = jax.random.uniform(jax.random.key(0), (4, *shape))
    featurise = jax.jit(features_of)
    features = featurise(images)
    assert features.shape == (4, num_features(shape))
    np.testing.assert_allclose(jnp.linalg.norm(features, axis=1), np.hypot(1.0, 0.3), rtol=1e-5)
    assert np.isfinite(featurise(jnp.zeros((4, *shape)))).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = default_config("gaussian_mixture")
    config.method.update(components=2, directions=15, mean_clip=5.0, deviation_clip=3.0)
    return fit(config, tmp_path_factory.mktemp("mixture") / "run", progress=False)


def test_a_run_divides_its_epsilon_among_full_batch_releases_and_says_how(finished):
    assert 9.9 < finished.epsilon <= 10
    assert finished.privacy["guarantee"]
    found = {p["name"]: p for p in finished.privacy["phases"]}
    assert list(found) == ["reranker", "class means", "basis", "centres", "moments"]
    assert finished.steps == sum(p["steps"] for p in found.values()) == 60 + 1 + 1 + 4 + 1
    assert {p["sampler"] for p in found.values()} == {"none: all records take part"}
    assert {p["mechanism_parameters"]["noise_multiplier"] for p in found.values()} == {
        found["basis"]["mechanism_parameters"]["noise_multiplier"]
    }
    assert sum(p["mechanism_parameters"]["share"] for p in found.values()) == pytest.approx(1)


def test_a_run_is_released_sampled_scored_and_reported(finished, tmp_path, capsys):
    assert publish([str(finished.workdir), str(tmp_path / "out.zip")]) == 0, capsys.readouterr().err
    drawn = sample(finished.workdir, 200, out=tmp_path / "samples")
    assert drawn.images.shape == (200, 8, 8, 1)
    scores = evaluate(
        finished.workdir, num_images=1000, metrics=["utility"], classifiers=["logistic_regression"], classifier_seeds=1
    )
    assert scores.gen2real["logistic_regression"].accuracies[0] > 0.8
    assert "Interpolations" not in report(finished.workdir, release=True).read_text()


def test_an_edited_mixture_is_not_released(finished, tmp_path, capsys):
    import shutil

    import flax.serialization

    run = shutil.copytree(finished.workdir, tmp_path / "run")
    path = run / "release/generator.msgpack"
    params = flax.serialization.msgpack_restore(path.read_bytes())
    params["images"] = np.zeros((2, 8, 8), np.float32)
    path.write_bytes(flax.serialization.to_bytes(params))
    assert publish([str(run), str(tmp_path / "out.zip")]) == 2
    assert "something else than the configured generator" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_run_and_noise_matters(finished, tmp_path):
    config = default_config("gaussian_mixture")
    config.train.seed = 3
    config.method.update(components=1, directions=5, candidates=1, cluster_steps=1, reranker_steps=1)
    weights = [
        (fit(config, tmp_path / name, progress=False).workdir / "release/generator.msgpack").read_bytes()
        for name in ("a", "b")
    ]
    assert weights[0] == weights[1]
    config.train.seed = 4
    assert (fit(config, tmp_path / "c", progress=False).workdir / "release/generator.msgpack").read_bytes() != weights[
        0
    ]
    assert "NOT PRIVATE" in (tmp_path / "a/release/PRIVACY.md").read_text()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("privacy.feedback", "private", "nothing is left over"),
        ("method.reranker_share", 1.0, "below 1"),
        ("method.components", 0, "at least 1"),
        ("method.deviation_clip", -1.0, "at least 0"),
        ("method.pose_weight", -1.0, "at least 0"),
        ("method.align_spot", True, "False with pose_weight"),
        ("method.align_lines", True, "False with pose_weight or align_spot"),
        ("method.contrast", 0.0, "above 0"),
        ("method.low_pass", -1, "at least 0"),
    ],
)
def test_a_bad_value_is_named(key, value, message, tmp_path):
    config = default_config("gaussian_mixture")
    group, name = key.split(".")
    config[group][name] = value
    if key.startswith("method.align"):
        config.method.pose_weight = 8.0
    if key == "privacy.feedback":
        config.privacy.feedback_l2_norm_clip = 2.0
    with pytest.raises(UserError, match=message):
        fit(config, tmp_path / "run", progress=False)


def test_images_that_are_too_large_are_refused_unless_their_low_frequencies_are_enough():
    def bind(spec, hp):
        return phases(spec, hp, plan_of(hp, 10, 1.0))

    with pytest.raises(UserError, match="low_pass=16"):
        bind(ImageSpec(96, 1, 2), Hyperparameters())
    bind(ImageSpec(96, 3, 2), Hyperparameters(low_pass=16))
    with pytest.raises(UserError, match="low_pass is 97"):
        bind(ImageSpec(96, 1, 2), Hyperparameters(low_pass=97))


@pytest.mark.parametrize("lanes", [1, 3, 20])
def test_each_image_is_its_first_accepted_proposal_whatever_the_lanes(lanes):
    needed = np.array([2, 0, 5, 1, 0, 0, 9, 3, 0, 0])

    def propose(index, attempt):
        return 100 * index + attempt, attempt >= jnp.asarray(needed)[index]

    found = accepted_images(propose, len(needed), 4, lanes)
    np.testing.assert_array_equal(found, 100 * np.arange(10) + np.minimum(needed, 3))
