"""The paragraph to quote: what it says of two records together is proven, and rounded upwards."""

import math

import pytest

from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.privacy import gaussian_event
from efsgd_jax.runs.statement import delta_of_two, statement

REPORT = {
    "guarantee": True,
    "epsilon": 3.0,
    "delta": 1e-5,
    "unit": "one image with its label",
    "neighbouring_relation": "zero-out one: ...",
}


def test_two_images_of_one_person_are_protected_less():
    text = statement(REPORT)
    assert "such as two images of one person, the guarantee is only epsilon 6 at delta 0.00022" in text
    assert "k times as large" not in text
    assert "delta faster. Which images show the same person was not declared. What is true" in text
    declared = statement({**REPORT, "unit": "one person with all their images"})
    assert "such as two images" not in declared
    assert "not declared" not in declared
    assert "the guarantee is only epsilon 20 at delta 0.23" in statement({**REPORT, "epsilon": 10.0})
    assert "the guarantee is only epsilon 40 at delta 1" in statement({**REPORT, "epsilon": 20.0})


@pytest.mark.parametrize("sigma", [0.7, 1.39, 3.7])
def test_the_bound_for_two_holds_for_a_gaussian_release_of_twice_the_sensitivity(sigma):
    """Two records move the sum twice as far: the noise multiplier is halved."""
    one = epsilon_of(gaussian_event(sigma), 1e-5)
    assert epsilon_of(gaussian_event(sigma / 2), delta_of_two(one, 1e-5)) <= 2 * one
    assert epsilon_of(gaussian_event(sigma / 2), 1e-5) > 2 * one  # at the same delta it would be false
    assert math.isclose(delta_of_two(0.0, 1e-5), 2e-5)
