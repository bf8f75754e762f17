"""Strengths of edges, and the reconstruction loss that compares them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, load_dataset
from efsgd_jax.config import validate
from efsgd_jax.models.edges import DIRECTIONS, DISTANCES, FAINT, edge_strengths
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.efsgd_mixture.method import reconstruction_error
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters


def stripes(first, side=28):
    """One image of vertical stripes, two columns wide, which begin ``first`` columns to the left of it."""
    wave = (np.arange(side) + first) // 2 % 2
    return jnp.asarray(np.broadcast_to(wave[None, None, :, None], (1, side, side, 1)), jnp.float32)


def test_a_flat_image_has_no_edges_and_a_finite_gradient():
    for grey in (0.0, 0.5, 1.0):
        inside = edge_strengths(jnp.full((1, 16, 16, 3), grey))
        np.testing.assert_allclose(inside, FAINT**0.5, rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(edge_strengths(x) - 0.3)))(jnp.zeros((1, 8, 8, 1)))
    assert np.all(np.isfinite(gradient))


def test_strengths_of_one_step_are_those_of_the_formula():
    step = jnp.zeros((1, 16, 16, 1)).at[:, :, 8:].set(1.0)
    found = np.asarray(edge_strengths(step)).reshape(len(DISTANCES), DIRECTIONS, 8, 8)
    # Brightness rises to the right: in a window that has a step of height 1 in one of its four columns.
    np.testing.assert_allclose(found[0, 0].max(), (1 / 4 + FAINT) ** 0.5, rtol=1e-6)
    # Over two pixels, two columns differ.
    np.testing.assert_allclose(found[1, 0].max(), (2 / 4 + FAINT) ** 0.5, rtol=1e-6)
    # 45 degrees from it the half, across and against it nothing.
    np.testing.assert_allclose(found[0, 1].max(), (1 / 8 + FAINT) ** 0.5, rtol=1e-5)
    for direction in (2, 3, 4, 5, 6):
        np.testing.assert_allclose(found[0, direction].max(), FAINT**0.5, rtol=1e-3)


def test_where_edges_lie_matters_less_than_whether_there_are_any():
    real, moved, grey = stripes(0), stripes(2), jnp.full((1, 28, 28, 1), 0.5)

    def squared(f, a, b):
        return float(jnp.sum(jnp.square(f(a) - f(b))))

    # To a squared error of pixels, grey is nearer to the stripes than the same stripes two pixels aside.
    assert squared(lambda x: x, real, grey) < 0.6 * squared(lambda x: x, real, moved)
    assert squared(edge_strengths, real, moved) < 0.1 * squared(edge_strengths, real, grey)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -5.0])
def test_no_image_moves_the_strengths_of_another(value):
    images = jax.random.uniform(jax.random.key(0), (3, 12, 12, 1))
    alone, beside = edge_strengths(images), edge_strengths(images.at[0].set(value))
    np.testing.assert_array_equal(alone[1:], beside[1:])


def test_no_images_have_no_strengths():
    assert edge_strengths(jnp.zeros((0, 8, 8, 1))).shape == (0, 256)


def test_channels_and_images_are_read_apart():
    images = jax.random.uniform(jax.random.key(0), (3, 12, 12, 2))
    together = edge_strengths(images)
    for i in range(3):
        np.testing.assert_allclose(edge_strengths(images[i : i + 1])[0], together[i], atol=1e-6)
    by_channel = together.reshape(3, len(DISTANCES) * DIRECTIONS, 6, 6, 2)
    for c in range(2):
        alone = edge_strengths(images[..., c : c + 1]).reshape(3, len(DISTANCES) * DIRECTIONS, 6, 6)
        np.testing.assert_allclose(alone, by_channel[..., c], atol=1e-6)


def test_the_loss_adds_edges_by_their_weight():
    image = load_dataset("digits").train_images[0]
    record = Record(jnp.asarray(image), jnp.asarray(0))
    rebuilt = jnp.full((1, 8, 8, 1), 0.3)
    real = np.asarray(image, np.float32)[None] / 255
    pixels = np.sum(np.square(real - 0.3))
    edges = np.sum(np.square(np.asarray(edge_strengths(jnp.asarray(real))) - np.asarray(edge_strengths(rebuilt))))
    assert edges > 1
    for weight in (0.0, 0.5, 2.0):
        found = reconstruction_error(rebuilt, record, Hyperparameters(edge_weight=weight))
        np.testing.assert_allclose(found, pixels + weight * edges, rtol=1e-5)


def test_a_negative_weight_is_refused():
    config = default_config("efsgd_mixture")
    config.method.edge_weight = -1.0
    with pytest.raises(UserError, match=r"config\.method\.edge_weight is -1\.0; it must be at least 0"):
        validate(config)
