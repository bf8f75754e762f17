"""The search of guided sampling: which alternative is taken, and policies that are refused in one line."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guidance import CLASSES, policy_of

from efsgd_jax import UserError
from efsgd_jax.models.alternatives import MOST_ALTERNATIVES, mixtures
from efsgd_jax.models.guided import guided


def table(magnitudes):
    """A denoiser of noise whose magnitude for the i-th condition of two coordinates is the i-th number."""

    def denoiser(x, sigma, condition):
        rows = jnp.round(condition[:, 0]).astype(int)
        return jnp.where(condition[:, 1] > 0, jnp.asarray(magnitudes)[rows], 0.0)[:, None] * jnp.ones_like(x)

    return denoiser


@pytest.mark.parametrize(
    ("magnitudes", "chosen"),
    [
        ([9.0, 5.0, 0.9, 0.1], 2),  # the first that is small enough, not the least
        ([9.0, 1.0, 0.9, 0.1], 1),  # the threshold itself is small enough
        ([9.0, 5.0, 2.0, 3.0], 2),  # none is: the least
        ([9.0, 30.0, 20.0, 20.0], 2),  # also where all are worse than the condition; of equal ones the first
        ([0.9, 0.1, 0.1, 0.1], 0),  # nothing was triggered
    ],
)
def test_the_search_takes_the_first_that_is_small_enough_and_else_the_least(magnitudes, chosen):
    def alternatives(condition):
        return jnp.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])

    sampler = guided(table(magnitudes), policy_of(alternatives=alternatives, noise_factor=jnp.ones_like))
    decision = jax.jit(sampler.decide)(jnp.zeros((1, 3)), jnp.ones(1), jnp.array([[0.0, 1.0]]))
    assert decision.alternative[0, 0] == chosen
    assert decision.alternative_magnitude[0] == pytest.approx(magnitudes[chosen])
    assert bool(decision.triggered[0]) == (chosen > 0)


def test_the_search_stops_where_all_have_found_one():
    calls = []

    def denoiser(x, sigma, condition):
        jax.debug.callback(lambda: calls.append(1))
        return table([9.0, 0.5, 0.4, 0.3])(x, sigma, condition)

    def alternatives(condition):
        return jnp.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])

    sampler = guided(denoiser, policy_of(alternatives=alternatives, noise_factor=jnp.ones_like))
    for condition, want in (([0.0, 1.0], 3), ([1.0, 1.0], 2)):
        calls.clear()
        jax.block_until_ready(sampler.decide(jnp.zeros((1, 3)), jnp.ones(1), jnp.array([condition])))
        jax.effects_barrier()
        assert len(calls) == want


def test_mixtures_begin_with_the_nearest_class_and_the_smallest_share():
    classes = jnp.array([[0.0], [1.0], [3.0], [10.0]])
    found = mixtures(classes, shares=(0.5, 1.0), partners=2)(jnp.array([3.0]))
    np.testing.assert_allclose(found[:, 0], [2.0, 1.5, 1.0, 0.0])
    assert mixtures(jnp.eye(30))(jnp.eye(30)[4]).shape == (24, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.5}, r"scale of the guidance policy is 0.5; it must be a number of at least 1"),
        ({"scale": math.nan}, r"scale of the guidance policy is nan; .*"),
        ({"threshold": 0.0}, r"threshold of the guidance policy is 0; it must be above 0"),
        ({"anchor_from": -1.0}, r"anchor_from of the guidance policy is -1; it must be a number of at least 0"),
        ({"anchor_to": 1.0}, r"anchor_to of the guidance policy is 1; .* above anchor_from, which is 1"),
        ({"anchor_to": math.inf}, r"anchor_to of the guidance policy is inf; .*"),
        ({"alternatives": 25}, r"alternatives of the guidance policy is 25; it must be a function"),
        ({"noise_factor": "noise"}, r"noise_factor of the guidance policy is 'noise'; it must be a function"),
    ],
    ids=str,
)
def test_a_bad_policy_is_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=f"^{message}$") as caught:
        policy_of(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(MOST_ALTERNATIVES + 1, CLASSES), (0, CLASSES), (3, CLASSES + 1), (CLASSES,)])
def test_too_many_alternatives_and_such_of_a_wrong_shape_are_refused(shape):
    sampler = guided(table([1.0]), policy_of(alternatives=lambda condition: jnp.zeros(shape)))
    with pytest.raises(UserError, match=r"have shape \(.*\); they must be 1 to 25 conditions of that shape"):
        sampler.decide(jnp.zeros((1, 3)), jnp.ones(1), jnp.zeros((1, CLASSES)))
