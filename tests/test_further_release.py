"""A release of sums beside DP-SGD, in a loop of one's own: what would lose its bound in silence is refused."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import (
    Budget,
    Composition,
    DpSgdMechanism,
    FullBatchMechanism,
    PlannedPhase,
    VectorSum,
    calibrate_plan,
    fresh_key,
)

N = 1000
IMAGES = jnp.ones((N, 4, 4))
MECHANISM = FullBatchMechanism(N, 5.0)


def planned(means, training):
    return [
        PlannedPhase("means", FullBatchMechanism(N, means), 1, Budget("means", 0.2)),
        PlannedPhase("training", DpSgdMechanism(N, 0.1, 200, training), 150, Budget("training", 0.8)),
    ]


def test_more_steps_than_planned_have_no_epsilon():
    both = Composition(tuple(planned(5.0, 1.8)))
    assert both.epsilon(0, 1e-4) == 0.0
    assert both.epsilon(1, 1e-4) < both.epsilon(151, 1e-4)
    for steps in (-1, 50.5, math.nan):
        with pytest.raises(UserError, match="it is a whole number"):
            both.epsilon(steps, 1e-4)
    for steps in (152, 401):
        with pytest.raises(UserError, match=rf"{steps} steps were taken, and the phases have 151 \(means 1"):
            both.epsilon(steps, 1e-4)
    with pytest.raises(UserError, match="152 steps"):
        both.event(152)


@pytest.mark.parametrize(("means", "training"), [(1.0, 1.0), (0.0, 1.0)])
def test_noise_that_stays_as_it_is_may_not_exceed_the_target(means, training):
    with pytest.raises(UserError, match=r"training 1\) all phases together spend epsilon [78]\.[0-9]+, more than 3"):
        calibrate_plan(planned(means, training), 3.0, 1e-4)
    stopping = calibrate_plan(planned(means, training), 3.0, 1e-4, stopping=True)
    assert stopping[1].mechanism.noise_multiplier == training


def test_a_target_or_a_delta_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="more than nan"):
        calibrate_plan(planned(8.0, 3.0), math.nan, 1e-4)
    with pytest.raises(UserError, match="delta"):
        calibrate_plan(planned(8.0, 3.0), 3.0, math.nan)


def test_enough_noise_stays_as_it_is():
    plan = planned(8.0, 3.0)
    assert calibrate_plan(plan, 3.0, 1e-4) == tuple(plan)


def release(key, images=IMAGES, of=lambda image: image.reshape(-1)):
    return MECHANISM.open(images, key, 0).release([VectorSum(of, 1.0)]).values[0]


def test_a_key_that_was_used_before_gives_other_noise():
    key = fresh_key()
    assert np.abs(release(key) - release(key)).min() > 0


@pytest.mark.filterwarnings("error")
def test_a_seed_is_no_key():
    with pytest.raises(TypeError, match=r"use efsgd_jax\.privacy\.fresh_key"):
        release(0)


def test_the_records_are_all_n_of_them():
    with pytest.raises(UserError, match="of N = 1000 records, and the arrays have 10 rows"):
        release(fresh_key(), IMAGES[:10])


def test_a_statistic_is_a_vector():
    with pytest.raises(UserError, match=r"has the shape \(4, 4\); it must be a vector"):
        release(fresh_key(), of=lambda image: image)


def test_a_release_without_noise_warns():
    unsolved = FullBatchMechanism(N, 0.0)
    with pytest.warns(UserWarning, match="has no noise and no guarantee. calibrate_plan returns"):
        unsolved.open(IMAGES, fresh_key(), 0)
