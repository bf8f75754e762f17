"""Shards: which ones train and score images, and that the accountant of replaced members bounds what it must."""

import math

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from efsgd_jax.privacy import epsilon
from efsgd_jax.privacy.subset import REPLACE_ONE, replaced_in_subset
from efsgd_jax.synthesizers.sanitized_gan.mechanism import IMAGE_SCHEDULES, ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.published_accounting import SanitizedGan, accountings, calibrate_as_published
from efsgd_jax.synthesizers.sanitized_gan.revealed import revealed_epsilon

M = ShardMechanism(600, 10, "independent", 1.07)


def hockey_stick(p, q, eps, x):
    return np.sum(np.maximum(p - np.exp(eps) * q, 0)) * (x[1] - x[0])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_no_replaced_member_of_a_subset_exceeds_the_curve(share):
    sigma = 0.7
    pld = replaced_in_subset(sigma, share, 1e-3)
    x = np.linspace(-12, 13, 200_001)
    rng = np.random.default_rng(0)
    # A: what is released if the changed shard is not drawn; B and B': what it says in the two worlds.
    triples = [(0, 0, 1), (0, 1, 0), (0.5, 0, 1), (1, 0, 1), *rng.random((10, 3))]
    for eps in (0.0, 0.3, 1.0, 2.0, -0.05):
        bound = pld.get_delta_for_epsilon(eps)
        found = []
        for a, b, c in triples:
            out, left, right = (stats.norm.pdf(x, m, sigma) for m in (a, b, c))
            p, q = (1 - share) * out + share * left, (1 - share) * out + share * right
            found.append(hockey_stick(p, q, eps, x))
        assert max(found) <= bound * (1 + 1e-3) + 1e-9
        assert max(found) >= 0.99 * bound - 1e-6  # and it is not too careful: one of them reaches it


def test_a_subset_of_all_records_is_a_gaussian():
    gaussian = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(2.0), 10)
    all_records = dp_accounting.SampledWithoutReplacementDpEvent(5, 5, dp_accounting.GaussianDpEvent(2.0))
    all_records = dp_accounting.SelfComposedDpEvent(all_records, 10)
    a, b = (epsilon(e, 1e-5, neighbouring_relation=REPLACE_ONE) for e in (gaussian, all_records))
    assert a == pytest.approx(b, rel=1e-3)
    assert a == pytest.approx(epsilon(gaussian, 1e-5), rel=1e-6)


def test_pld_is_below_rdp_and_other_events_are_refused():
    event = M.event(20)
    by = {a: epsilon(event, 1e-5, accountant=a, neighbouring_relation=REPLACE_ONE) for a in ("pld", "rdp")}
    assert by["pld"] < by["rdp"]
    with pytest.raises(ValueError, match="does not support"):
        epsilon(
            dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(1.0)),
            1e-5,
            neighbouring_relation=REPLACE_ONE,
        )


def test_every_record_is_in_one_shard():
    shards = M.deal(jax.random.key(0))
    assert sorted(shards.order.tolist()) == list(range(600))
    assert int(shards.sizes.sum()) == 600
    # Records are assigned independently: sizes have the variance of a binomial.
    sizes = np.concatenate([M.deal(jax.random.key(i)).sizes for i in range(50)])
    assert np.var(sizes) == pytest.approx(600 * 0.1 * 0.9, rel=0.25)


def test_a_shard_reads_its_own_examples():
    shards = M.deal(jax.random.key(0))
    members = jnp.array([3, 7, 3])
    rows = M.draw(jax.random.key(1), shards, members, 400)
    for member, drawn in zip(members.tolist(), rows, strict=True):
        start, size = int(shards.starts[member]), int(shards.sizes[member])
        assert set(drawn.tolist()) == set(shards.order[start : start + size].tolist())
    lonely = M._replace(dataset_size=3)
    rows = lonely.draw(jax.random.key(1), lonely.deal(jax.random.key(0)), jnp.arange(10), 5)
    assert int(rows.max()) < 3


def test_training_follows_a_public_order_and_scoring_shards_are_fresh_draws():
    turns = [M._replace(trained_per_step=3).turn(jax.random.key(t), jnp.array(t)) for t in range(20)]
    assert np.concatenate([t.training for t in turns]).tolist() == [i % 10 for i in range(60)]
    scoring = np.concatenate([t.scoring for t in turns])
    assert len(scoring) == 20 * 32
    assert stats.chisquare(np.bincount(scoring, minlength=10)).pvalue > 1e-3
    subset = M._replace(schedule="parameter", judges_per_step=4)
    assert all(len(set(subset.turn(jax.random.key(t), jnp.array(t)).scoring.tolist())) == 4 for t in range(20))
    published = M._replace(schedule="published").turn(jax.random.key(3), jnp.array(3))
    assert published.training.tolist() == published.scoring.tolist()
    assert M._replace(schedule="round_robin").turn(jax.random.key(3), jnp.array(13)).scoring.tolist() == [3]


def test_numbers_of_samples_that_are_left_out_are_counted_in_delta():
    published = M._replace(schedule="published")
    bounds = [revealed_epsilon(published, 50, delta) for delta in (1e-5, 1e-15, 52e-30, 51e-30)]
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] == math.inf


def test_the_parameter_schedule_costs_least_and_the_published_one_most():
    by = {s: M._replace(schedule=s).epsilon(50, 1e-5, grid=1e-3) for s in (*IMAGE_SCHEDULES, "parameter")}
    assert by["parameter"] < by["independent"] < by["round_robin"] < by["published"]
    one_visit = M._replace(schedule="round_robin").epsilon(10, 1e-5)
    assert one_visit == pytest.approx(epsilon(dp_accounting.GaussianDpEvent(1.07 / 32**0.5), 1e-5), rel=1e-3)
    assert M._replace(schedule="round_robin").epsilon(11, 1e-5) > one_visit
    # Revealed draws: with one shard nothing is hidden, and it is a Gaussian.
    alone = M._replace(schedule="published", num_shards=1)
    assert alone.epsilon(2, 1e-5) == pytest.approx(alone._replace(schedule="round_robin").epsilon(2, 1e-5), rel=1e-3)


def test_hidden_feedback_costs_and_private_does_not():
    m = M._replace(schedule="parameter", num_shards=100)
    plain = m.epsilon(50, 1e-5, grid=1e-3)
    hidden = m._replace(feedback="hidden", feedback_l2_norm_clip=1.0)
    assert hidden.epsilon(50, 1e-5, grid=1e-3) > 5 * plain
    assert m._replace(feedback="private", feedback_l2_norm_clip=2.0).epsilon(50, 1e-5, grid=1e-3) == plain
    published = m._replace(schedule="published")
    assert published._replace(feedback="hidden", feedback_l2_norm_clip=1.0).epsilon(50, 1e-5) > published.epsilon(
        50, 1e-5
    )


def test_what_has_no_proof_has_no_event():
    with pytest.raises(ValueError, match="nothing is proven"):
        M._replace(schedule="published").event(1)
    leaking = M._replace(real_codes=True)
    assert not leaking.proven
    assert leaking.epsilon(1, 1e-5) == np.inf
    assert leaking._replace(schedule="parameter").proven
    with pytest.raises(ValueError, match="independent across"):
        M._replace(feedback="local", feedback_l2_norm_clip=1.0).transform(jax.random.key(0))
    M._replace(schedule="round_robin", feedback="local", feedback_l2_norm_clip=1.0).transform(jax.random.key(0))


def test_three_accountings_of_a_run_have_their_known_epsilons():
    got = accountings(M._replace(num_shards=1000, dataset_size=60_000), 20_000, 1e-5, 5.51)
    assert got["as_published"] == pytest.approx(9.24, rel=2e-3)
    assert got["shared_draw"] == pytest.approx(329, rel=2e-3)
    assert got["proven"] == 5.51
    again = calibrate_as_published(M._replace(schedule="published"), 100, 10.0, 1e-5)
    assert 9.5 < SanitizedGan(10, 32, 100, again.noise_multiplier).as_published(1e-5) <= 10
