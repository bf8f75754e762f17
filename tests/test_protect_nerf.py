"""The NeRF of ``efsgd protect views``: the renderer by hand, what it learns, and cameras that are refined."""

import jax.numpy as jnp
import numpy as np
import pytest
from small_captures import NETWORK, draw, views_of

from efsgd_jax.protect import nerf
from efsgd_jax.protect.likeness import psnr


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("capture"))


def test_a_ray_is_rendered_as_by_hand():
    colours = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.2, 0.4, 0.6]])
    densities, lengths = jnp.array([0.5, 2.0, 1.0]), jnp.array([1.0, 0.5, 2.0])
    light = np.exp(-np.array([0.0, 0.5, 1.5, 3.5]))
    want = sum((light[i] - light[i + 1]) * np.asarray(colours[i]) for i in range(3)) + light[3]
    np.testing.assert_allclose(nerf.composite(colours, densities, lengths), want, rtol=1e-6)
    np.testing.assert_array_equal(nerf.composite(colours, 0 * densities, lengths), jnp.ones(3))


def test_rays_go_through_the_centres_of_pixels():
    camera = jnp.concatenate([jnp.eye(3), jnp.array([[1.0], [2.0], [3.0]])], axis=1)
    poses = jnp.broadcast_to(camera, (3, 3, 4))
    origins, directions = nerf.rays_of(poses, jnp.array([0, 5, 15]), (4, 4), jnp.float32(2.0))
    want = np.array([[-0.75, 0.75, -1], [-0.25, 0.25, -1], [0.75, -0.75, -1]])
    np.testing.assert_allclose(directions, want / np.linalg.norm(want, axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(origins, np.broadcast_to([1, 2, 3], (3, 3)))


def test_octaves_are_sines_of_doubled_angles():
    x = jnp.array([[0.3, -0.7, 0.1]])
    encoded = nerf.encode(x, 3)
    for i in range(3):
        want = np.concatenate([np.sin(2**i * np.pi / 2 * x), np.cos(2**i * np.pi / 2 * x)], axis=1)
        np.testing.assert_allclose(encoded[:, 3 + 6 * i : 9 + 6 * i], want, atol=1e-6)


def test_a_nerf_learns_one_colour(capture):
    views = views_of(capture)
    views = views._replace(colours=np.broadcast_to(np.float32([0.2, 0.5, 0.8]), views.colours.shape))
    options = NETWORK._replace(steps=150)
    params = nerf.fit(views, options).learned["params"]
    seen = nerf.render_views(params, views.poses, views.focal, options, views.shape)
    assert float(psnr(seen, views.colours).min()) > 25


def test_cameras_that_are_not_refined_stay(capture):
    views = views_of(capture)
    assert not np.any(nerf.fit(views, NETWORK).learned["twists"])
    assert np.any(nerf.fit(views, NETWORK._replace(pose_learning_rate=1e-3)).learned["twists"])
