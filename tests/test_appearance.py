"""Images as vectors: poses are found and put back, and nothing but the image itself decides about its vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import default_config, fit, load_dataset, sample
from efsgd_jax.data import ImageSpec
from efsgd_jax.synthesizers.gaussian_mixture import spot
from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions, to_image, to_vector, vector_size
from efsgd_jax.synthesizers.gaussian_mixture.pose import RANGES, find_pose, from_frame, places, to_frame

SPEC = ImageSpec(32, 1, 2)


def to_vectors(images, options):
    return jax.vmap(lambda image: to_vector(image, options))(images)


def blob(side=32, x=0.0, y=0.0, width=0.1, height=0.14, shear=0.0):
    """A slanted Gaussian spot whose pose is known."""
    across, down = places(side)
    v = down - y
    u = across - x - shear * v
    return jnp.exp(-(jnp.square(u / width) + jnp.square(v / height)) / 2)[..., None]


def test_a_known_pose_is_found():
    pose = np.asarray(find_pose(blob(x=0.06, y=-0.05, width=0.1, height=0.14, shear=0.3), slant=True))
    wanted = [0.06, -0.05, np.log(0.1 / 0.17), np.log(0.14 / 0.21), 0.3]
    np.testing.assert_allclose(pose * np.array(RANGES), wanted, atol=0.02)
    assert find_pose(blob(shear=0.3), slant=False)[4] == 0


def test_in_the_frame_all_poses_look_alike_and_return_to_their_own():
    straight = blob()
    reference = to_frame(straight, find_pose(straight, True))
    for changes in ({"x": 0.1, "y": 0.05}, {"width": 0.14}, {"height": 0.1}, {"shear": -0.4}):
        image = blob(**changes)
        pose = find_pose(image, True)
        framed = to_frame(image, pose)
        assert float(jnp.max(jnp.abs(framed - reference))) < 0.06
        assert float(jnp.max(jnp.abs(image - straight))) > 0.2
        assert float(jnp.max(jnp.abs(from_frame(framed, pose) - image))) < 0.08


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 1)), np.ones((8, 8, 3)), np.eye(8)[..., None] > 2, np.eye(8)[..., None]]
)
def test_odd_images_have_finite_poses_within_the_ranges(image):
    image = jnp.asarray(image, jnp.float32)
    pose = find_pose(image, True)
    assert np.isfinite(pose).all()
    assert float(jnp.max(jnp.abs(pose))) <= 1
    assert np.isfinite(to_frame(image, pose)).all()


def test_a_vector_is_a_function_of_its_image_alone():
    """What makes the sensitivity of a sum of vectors that of one vector."""
    images = jax.random.randint(jax.random.key(0), (6, 12, 12, 1), 0, 256).astype(jnp.uint8)
    options = AppearanceOptions(pose_weight=4.0, low_pass=6)
    vectors = jax.jit(lambda images: to_vectors(images, options))
    before = vectors(images)
    after = vectors(images.at[2].set(0))
    same = np.all(np.asarray(before == after), axis=1)
    assert same.tolist() == [True, True, False, True, True, True]
    np.testing.assert_allclose(to_vectors(images[3:4], options)[0], before[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [AppearanceOptions(), AppearanceOptions(pose_weight=3.0), AppearanceOptions(low_pass=8)]
)
def test_an_image_comes_back_from_its_vector(options):
    data = load_dataset("digits")
    images = jnp.asarray(data.train_images[:50])
    vectors = to_vectors(images, options)
    assert vectors.shape == (50, vector_size(data.spec, options))
    back = jax.vmap(lambda v: to_image(jax.random.key(0), v, data.spec, options))(vectors)
    error = jnp.mean(jnp.abs(back - images / 255))
    # Twice read between the pixels of an 8x8 image, which blurs it; without a pose nothing is lost.
    assert float(error) < (0.12 if options.pose_weight else 1e-5)


def test_low_frequencies_are_shorter_than_the_image_by_what_they_leave_out():
    """An orthonormal basis: what clip norms mean is the same for pixels and for coefficients."""
    image = (jax.random.uniform(jax.random.key(0), (1, 28, 28, 1)) * 255).astype(jnp.uint8)
    pixels = to_vectors(image, AppearanceOptions())[0]
    np.testing.assert_allclose(
        jnp.linalg.norm(to_vectors(image, AppearanceOptions(low_pass=28))[0]), jnp.linalg.norm(pixels), rtol=1e-5
    )
    options = AppearanceOptions(low_pass=16)
    short = to_vectors(image, options)[0]
    assert short.shape == (256,)
    left_out = pixels - to_image(jax.random.key(0), short, ImageSpec(28, 1, 2), options).reshape(-1)
    np.testing.assert_allclose(
        jnp.vdot(short, short) + jnp.vdot(left_out, left_out), jnp.vdot(pixels, pixels), rtol=1e-3
    )


def test_a_deformation_displaces_by_the_amount_asked_for():
    """Of a ramp, whose brightness says where each pixel was read."""
    across, _ = places(32)
    ramp = (across + 0.5)[..., None]
    options = AppearanceOptions(deformation=0.03)
    read = jax.vmap(lambda k: to_image(k, ramp.reshape(-1), SPEC, options))(jax.random.split(jax.random.key(0), 200))
    moved = np.asarray(read - ramp)[:, 10:22, 10:22]
    assert 0.027 < moved.std() < 0.033
    neighbours = np.corrcoef(moved[:, 5, 5, 0], moved[:, 5, 6, 0])[0, 1]
    assert neighbours > 0.9


def test_contrast_moves_brightness_away_from_the_pivot():
    vector = jnp.array([0.2, 0.3, 0.4, 0.9])
    image = to_image(jax.random.key(0), vector, ImageSpec(2, 1, 2), AppearanceOptions(contrast=2.0))
    np.testing.assert_allclose(image.reshape(-1), [0.1, 0.3, 0.5, 1.0], atol=1e-6)


def a_cell(x: float, y: float, side: int = 32):
    """A grey disc on black with a dark spot ``(x, y)`` from its centre, uint8 ``[S, S, 3]``."""
    across, down = places(side)
    disc = jnp.where(jnp.square(across) + jnp.square(down) < 0.45**2, 0.8, 0.0)
    dark = jnp.exp(-(jnp.square(across - x) + jnp.square(down - y)) / (2 * 0.04**2))
    return jnp.round(255 * disc * (1 - 0.7 * dark))[..., None].repeat(3, axis=-1).astype(jnp.uint8)


SPOTS = [(0.3, 0.0), (0.0, -0.2), (-0.15, 0.1), (0.05, 0.05)]


@pytest.mark.parametrize("place", SPOTS)
def test_a_spot_is_found_and_brought_to_its_place(place):
    distance, angle = spot.find_spot(a_cell(*place))
    image = a_cell(*place).astype(jnp.float32) / 255
    np.testing.assert_allclose(distance, np.hypot(*place), atol=0.02)
    np.testing.assert_allclose(distance * jnp.stack([jnp.cos(angle), jnp.sin(angle)]), place, atol=0.02)
    moved = spot.to_place(image, distance, angle)
    row, column = jnp.unravel_index(jnp.argmin(moved[6:26, 6:26, 0]), (20, 20))
    np.testing.assert_allclose([column + 6, row + 6], [15.5 + 32 * spot.RADIUS, 15.5], atol=1.5)
    np.testing.assert_allclose(spot.from_place(moved, distance, angle)[6:26, 6:26], image[6:26, 6:26], atol=0.3)


def test_the_average_of_aligned_cells_has_a_spot_and_generated_ones_have_it_anywhere():
    images = jnp.stack([a_cell(*place) for place in SPOTS])
    darkest = []
    for options in (AppearanceOptions(), AppearanceOptions(align_spot=True)):
        mean = jnp.mean(to_vectors(images, options), axis=0)[: 32 * 32 * 3].reshape(32, 32, 3)
        darkest.append(float(jnp.min(mean[6:26, 6:26])))
    assert darkest[1] < 0.6 * darkest[0]
    options = AppearanceOptions(align_spot=True)
    vector = to_vectors(images, options)[0]
    assert vector.shape == (vector_size(ImageSpec(32, 3, 2), options),)
    drawn = [to_image(jax.random.key(i), vector, ImageSpec(32, 3, 2), options) for i in range(8)]
    found = [spot.find_spot(jnp.round(255 * x).astype(jnp.uint8)) for x in drawn]
    assert max(abs(float(d) - 0.3) for d, _ in found) < 0.04
    assert np.std([float(jnp.sin(a)) for _, a in found]) > 0.3


@pytest.mark.parametrize("image", [jnp.zeros((16, 16, 1)), jnp.full((16, 16, 3), 255), jnp.full((9, 9, 1), 50)])
def test_images_without_a_spot_have_a_finite_one(image):
    distance, angle = spot.find_spot(image.astype(jnp.uint8))
    assert (float(distance), float(angle)) == (0.0, 0.0)
    assert np.isfinite(spot.to_place(image / 255, distance, angle)).all()


@pytest.mark.parametrize("shape", [(8, 8, 1), (13, 13, 3), (32, 32, 3)])
def test_a_record_at_the_front_moves_no_spot(shape):
    """Rounding that depends on the place in a batch would turn a picture without a spot the other way."""
    checkerboard = 255 * (np.indices(shape).sum(0) % 2)
    others = [
        np.zeros(shape),
        np.full(shape, 255),
        checkerboard,
        *np.random.default_rng(0).integers(0, 256, (9, *shape)),
    ]
    images = jnp.asarray(np.stack(others).astype(np.uint8))
    found = jax.jit(jax.vmap(spot.find_spot))
    for whole, part in zip(found(images), found(images[1:]), strict=True):
        np.testing.assert_array_equal(whole[1:], part)
    options = AppearanceOptions(align_spot=True)
    np.testing.assert_allclose(to_vectors(images, options)[1:], to_vectors(images[1:], options), atol=1e-5)


@pytest.mark.slow
def test_generated_cells_have_a_spot_only_if_those_of_their_class_do(tmp_path):
    rng = np.random.default_rng(0)
    places = rng.uniform(-0.25, 0.25, (300, 2))
    labels = np.arange(300) % 2
    images = jax.vmap(a_cell)(*jnp.where(labels[:, None] == 1, places, 9.0).T)
    np.savez(tmp_path / "cells.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(tmp_path / "cells.npz"), classes="2")
    config.privacy.epsilon = 100.0
    config.method.update(align_spot=True, mean_clip=40.0, components=1, directions=10, candidates=1)
    fit(config, tmp_path / "run", progress=False)
    sample(tmp_path / "run", 40, out=tmp_path / "out", formats=("npz",))
    with np.load(tmp_path / "out/samples.npz") as drawn:
        inside = drawn["x_train"][:, 8:24, 8:24].reshape(40, -1).min(axis=1)
        assert inside[drawn["y_train"] == 1].mean() < 0.7 * inside[drawn["y_train"] == 0].mean()
