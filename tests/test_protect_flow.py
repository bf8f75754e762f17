"""Displacement fields of ``efsgd protect views``: the warp, the bounds that it keeps, and random flows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_captures import draw, views_of

from efsgd_jax.protect.flow import Bounds, alike, keep_alike, random_flow, random_of_lengths, warp, within
from efsgd_jax.protect.likeness import psnr, ssim


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return views_of(draw(tmp_path_factory.mktemp("capture"))).colours


def test_zero_flow_is_the_identity():
    pictures = jax.random.uniform(jax.random.key(0), (2, 7, 9, 3))
    np.testing.assert_array_equal(warp(pictures, jnp.zeros((2, 7, 9, 2))), pictures)


def test_a_whole_shift_moves_whole_pixels_and_a_half_one_is_a_mean():
    pictures = jax.random.uniform(jax.random.key(0), (1, 6, 5, 3))
    down = warp(pictures, jnp.broadcast_to(jnp.array([0.0, 2.0]), (1, 6, 5, 2)))
    np.testing.assert_array_equal(down[:, :4], pictures[:, 2:])
    np.testing.assert_array_equal(down[:, 4:], jnp.broadcast_to(pictures[:, 5:], (1, 2, 5, 3)))
    right = warp(pictures, jnp.broadcast_to(jnp.array([0.5, 0.0]), (1, 6, 5, 2)))
    np.testing.assert_allclose(right[:, :, :4], (pictures[:, :, :4] + pictures[:, :, 1:]) / 2, rtol=1e-6)


@pytest.mark.parametrize("radius", [0.3, 1.0, 3.0])
def test_no_displacement_is_longer_than_the_radius(radius):
    wild = 5 * jax.random.normal(jax.random.key(1), (3, 8, 8, 2))
    for flow in (within(wild, radius), random_flow((3, 8, 8, 2), radius, jax.random.key(2))):
        lengths = np.linalg.norm(np.asarray(flow, np.float64), axis=-1)
        assert lengths.max() <= radius
        assert lengths.max() > 0.99 * radius
    short = wild * 1e-3
    np.testing.assert_array_equal(within(short, radius), short)


def test_pictures_stay_alike_and_a_flow_that_already_does_is_kept(colours):
    wild = random_flow((*colours.shape[:3], 2), 4.0, jax.random.key(3))
    bounds = Bounds(4.0)
    assert not alike(colours, wild, bounds).any()
    kept = keep_alike(colours, wild, bounds)
    assert alike(colours, kept, bounds).all()
    written = jnp.round(255 * warp(colours, kept)) / 255
    assert float(psnr(written, colours).min()) >= 26
    assert float(ssim(written, colours).min()) >= 0.9
    assert (np.abs(kept).max(axis=(1, 2, 3)) > 0).all()
    np.testing.assert_array_equal(keep_alike(colours, 1e-3 * wild, bounds), 1e-3 * wild)


def test_ssim_is_that_of_its_formula():
    a, b = (np.random.default_rng(i).uniform(size=(1, 7, 7, 1)) for i in (0, 1))
    cov = np.mean(a * b) - a.mean() * b.mean()
    want = (2 * a.mean() * b.mean() + 1e-4) * (2 * cov + 9e-4)
    want /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
    np.testing.assert_allclose(ssim(jnp.asarray(a), jnp.asarray(b)), [want], rtol=1e-4)


def test_a_random_flow_of_the_same_lengths_has_them_in_each_view_at_other_places():
    flow = random_flow((2, 16, 16, 2), 1.0, jax.random.key(4)) * jnp.arange(512.0).reshape(2, 16, 16, 1) / 512
    found = random_of_lengths(flow, jax.random.key(5))
    lengths, wanted = (np.linalg.norm(np.asarray(f), axis=-1) for f in (found, flow))
    for one, other in zip(lengths, wanted, strict=True):
        np.testing.assert_allclose(np.sort(one.ravel()), np.sort(other.ravel()), atol=1e-5)
    assert np.abs(np.corrcoef(lengths.ravel()[:256], wanted.ravel()[:256])[0, 1]) < 0.5
    # Neighbours have nearly the same displacement.
    assert np.abs(np.diff(found, axis=2)).mean() < 0.5 * np.abs(np.asarray(found)).mean()
