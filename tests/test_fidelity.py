"""Distances between sets of features: by hand, in closed form, and against their peers where these are installed."""

import itertools
import re

import numpy as np
import pytest

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import (
    fidelity_scores,
    frechet_distance_of_features,
    inception_score,
    kernel_distance,
    manifold,
    manifold_scores,
)


def features(n, d=8, shift=0.0, seed=0):
    """ReLU features, like a network's."""
    return np.maximum(np.random.default_rng(seed).normal(size=(n, d)) + shift, 0.0).astype(np.float32)


def kernel(x, y):
    return (x @ y / len(x) + 1) ** 3


def test_kernel_distance_is_the_mean_over_pairs():
    x, y = features(5), features(5, shift=0.5, seed=1)
    pairs = list(itertools.permutations(range(5), 2))
    within = sum(np.mean([kernel(z[i], z[j]) for i, j in pairs]) for z in (x, y))
    between = np.mean([kernel(a, b) for a, b in itertools.product(x, y)])
    assert kernel_distance(x, y) == pytest.approx((within - 2 * between, 0.0), rel=1e-5)
    assert kernel_distance(y, x)[0] == pytest.approx(kernel_distance(x, y)[0], rel=1e-9)


def test_kernel_distance_of_gaussians_is_that_of_their_moments():
    """``E k(x, y)`` by the moments of x and y: of ``x.y`` to the power of 0, 1, 2, 3."""
    d, mu = 3, np.array([0.5, 1.0, -0.5])
    means = {"x": np.zeros(d), "y": mu}

    def moments(m):
        third = np.einsum("i,j,k->ijk", m, m, m)
        for spec in ("i,jk->ijk", "j,ik->ijk", "k,ij->ijk"):
            third = third + np.einsum(spec, m, np.eye(d))
        return m, np.eye(d) + np.outer(m, m), third

    def expected(a, b):
        t = [np.sum(p * q) / d**i for i, (p, q) in enumerate(zip(moments(means[a]), moments(means[b]), strict=True), 1)]
        return 1 + 3 * t[0] + 3 * t[1] + t[2]

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50_000, d)), mu + rng.normal(size=(50_000, d))
    want = expected("x", "x") + expected("y", "y") - 2 * expected("x", "y")
    mean, std = kernel_distance(x, y, subsets=25)
    assert want > 0.5
    assert mean == pytest.approx(want, abs=4 * std / 5)
    assert mean == pytest.approx(want, rel=0.05)
    mean, std = kernel_distance(x, rng.normal(size=(50_000, d)), subsets=25)
    assert mean == pytest.approx(0.0, abs=4 * std / 5)


def test_kernel_distance_draws_its_subsets_by_seed():
    x, y = features(60), features(80, shift=0.2, seed=1)
    first = kernel_distance(x, y, subsets=10, subset_size=50)
    assert first == kernel_distance(x, y, subsets=10, subset_size=50)
    assert first != kernel_distance(x, y, subsets=10, subset_size=50, seed=1)
    assert kernel_distance(x, y) == kernel_distance(x, y, subset_size=60)  # all of the smaller set


def test_manifold_scores_of_a_few_points_are_those_by_hand():
    """Radii of the real points 1, 1, 2, 1, 1; of the generated ones 2, 2, 11.5."""
    real, fake = np.array([[0.0], [1], [3], [20], [21]]), np.array([[0.5], [2.5], [14]])
    assert manifold_scores(real, fake, k=1) == pytest.approx((2 / 3, 1.0, (2 + 1 + 0) / 3, 3 / 5))


def test_manifold_scores_in_chunks_are_those_by_all_distances(monkeypatch):
    real, fake, k = features(50), features(40, shift=0.3, seed=1), 3

    def distances(x, y):
        return np.linalg.norm(x[:, np.newaxis] - y, axis=-1)

    real_radii, fake_radii = (np.sort(distances(x, x), axis=1)[:, k] for x in (real, fake))
    between = distances(real, fake)
    inside = between < real_radii[:, np.newaxis]
    want = (
        inside.any(axis=0).mean(),
        (between < fake_radii).any(axis=1).mean(),
        inside.sum(axis=0).mean() / k,
        (between.min(axis=1) < real_radii).mean(),
    )
    monkeypatch.setattr(manifold, "CHUNK", 7)
    assert manifold_scores(real, fake, k) == pytest.approx(want)
    assert all(0 < value < 1 for value in want)


def test_manifold_scores_are_near_one_for_equal_and_zero_for_disjoint_samples():
    real = features(500)
    equal = manifold_scores(real, features(500, seed=1))
    assert equal.density == pytest.approx(1.0, abs=0.1)
    assert min(equal) > 0.9
    assert manifold_scores(real, real + 100) == (0.0, 0.0, 0.0, 0.0)


def test_frechet_distance_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    mean, root = np.array([5.0, 0, 0, 1]), np.tril(rng.uniform(0.2, 1.0, (4, 4)))
    real, fake = rng.normal(size=(50_000, 4)), mean + rng.normal(size=(50_000, 4)) @ root.T
    sigma = root @ root.T
    want = mean @ mean + 4 + np.trace(sigma) - 2 * np.sqrt(np.linalg.eigvalsh(sigma)).sum()
    assert frechet_distance_of_features(real, fake) == pytest.approx(want, rel=0.01)


def test_fidelity_scores_are_those_of_each_metric():
    real, fake = features(900), features(900, shift=0.1, seed=1)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 900)
    score, distance = inception_score(probabilities), kernel_distance(real, fake)
    assert fidelity_scores(real, fake, probabilities) == {
        "fid": frechet_distance_of_features(real, fake),
        "kid": distance[0],
        "kid_std": distance[1],
        "inception_score": score[0],
        "inception_score_std": score[1],
        **manifold_scores(real, fake)._asdict(),
        "num_images": 900,
    }


def spoiled(x, value=np.nan):
    x = x.copy()
    x[7, 1] = value
    return x


@pytest.mark.parametrize(
    ("real", "fake", "probabilities", "message"),
    [
        (5, 20, 20, "precision and recall with 5 neighbours of 5 real and 20 generated images; use at least 6"),
        (20, 9, 9, "an inception score of 9 images in 10 splits"),
        (20, 20, 19, "20 generated images have features, 19 have probabilities"),
        (spoiled(features(20)), 20, 20, "the features of the real images contain nan, first in row 7"),
        (20, spoiled(features(20), np.inf), 20, "the features of the generated images contain inf, first in row 7"),
        (20, 20, spoiled(features(20)), "the probabilities contain nan, first in row 7"),
        (20, features(20, d=9), 20, "real features of shape (20, 8) and generated ones of shape (20, 9)"),
    ],
)
def test_unusable_features_are_refused_in_one_line(real, fake, probabilities, message):
    real, fake, probabilities = (features(x) if isinstance(x, int) else x for x in (real, fake, probabilities))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        fidelity_scores(real, fake, probabilities)
    assert "\n" not in str(error.value)


def test_manifold_scores_are_those_of_prdc():
    prdc = pytest.importorskip("prdc")
    for d, k in ((8, 5), (64, 3)):
        real, fake = features(1200, d), features(1000, d, shift=0.1, seed=1)
        want = prdc.compute_prdc(real, fake, nearest_k=k)
        assert manifold_scores(real, fake, k)._asdict() == pytest.approx(want, abs=1e-12)


def test_frechet_and_kernel_distances_are_those_of_torch_fidelity():
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = features(1500, 32), features(1200, 32, shift=0.1, seed=1)
    inputs = [torch.from_numpy(x) for x in (fake, real)]
    kid = kid_features_to_metric(*inputs, kid_subsets=10, verbose=False)
    names = [f"kernel_inception_distance_{x}" for x in ("mean", "std")]
    assert kernel_distance(real, fake, subsets=10) == pytest.approx([kid[name] for name in names], rel=1e-3)
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, inputs), verbose=False)
    assert frechet_distance_of_features(real, fake) == pytest.approx(fid["frechet_inception_distance"], rel=1e-3)
