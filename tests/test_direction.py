"""Pictures without up and down: their lines are brought to one direction, and generated ones are turned at random."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.data import ImageSpec
from efsgd_jax.synthesizers.gaussian_mixture import direction
from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions, to_image, to_vector, vector_size


def versions(image):
    """The eight ways to turn and mirror an image."""
    for mirror, swap, turn in itertools.product((False, True), repeat=3):
        x = image[:, ::-1] if mirror else image
        x = np.swapaxes(x, 0, 1) if swap else x
        yield x[::-1, ::-1] if turn else x


def a_road(side, angle, shift):
    """A bright line across dark ground that is brighter on one of its sides, uint8 ``[S, S, 3]``."""
    line = (np.arange(side) + 0.5) / side - 0.5
    away = np.cos(angle) * line[None] + np.sin(angle) * line[:, None] - shift
    return np.uint8(60 + 40 * (away > 0) + 120 * np.exp(-np.square(away / 0.06)))[..., None].repeat(3, axis=-1)


@pytest.mark.parametrize("shape", [(8, 8, 1), (13, 13, 3), (32, 32, 3), (130, 130, 3)])
def test_all_eight_versions_are_aligned_to_the_same_one(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = [np.asarray(direction.aligned(jnp.asarray(x))) for x in versions(image)]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert any((found[0] == x).all() for x in versions(image))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3), (16, 16, 1)])
def test_an_image_without_lines_stays_as_it_is(shape):
    image = jnp.full(shape, 255, jnp.uint8)
    np.testing.assert_array_equal(direction.aligned(image), image)


def test_the_mean_of_aligned_roads_has_a_road():
    rng = np.random.default_rng(0)
    roads = [a_road(32, angle, shift) for angle, shift in rng.uniform((0, -0.1), (2 * np.pi, 0.1), (200, 2))]
    means = []
    for options in (AppearanceOptions(), AppearanceOptions(align_lines=True)):
        vectors = jax.vmap(lambda x, options=options: to_vector(x, options))(jnp.asarray(np.stack(roads)))
        assert vectors.shape == (200, vector_size(ImageSpec(32, 3, 2), options))
        means.append(np.asarray(jnp.mean(vectors, axis=0)).reshape(32, 32, 3))
    across, down = (np.square(np.diff(means[1], axis=axis)).sum() for axis in (1, 0))
    assert across > 4 * down
    # Beside the road the aligned ground is dark on the left and bright on the right; the other mean is even.
    plain, sides = (float(m[:, -6:].mean() - m[:, :6].mean()) for m in means)
    assert sides > 0.05 > 5 * abs(plain)


def test_generated_images_are_turned_in_all_eight_ways_and_aligned_again():
    image = jnp.asarray(a_road(16, 0.3, 0.1))
    options, spec = AppearanceOptions(align_lines=True), ImageSpec(16, 3, 2)
    vector = to_vector(image, options)
    drawn = jax.vmap(lambda key: to_image(key, vector, spec, options))(jax.random.split(jax.random.key(0), 100))
    as_bytes = np.asarray(jnp.round(255 * drawn)).astype(np.uint8)
    assert len({x.tobytes() for x in as_bytes}) == 8
    again = jax.vmap(lambda x: to_vector(x, options))(jnp.asarray(as_bytes))
    np.testing.assert_allclose(again, jnp.broadcast_to(vector, again.shape), atol=1e-6)
