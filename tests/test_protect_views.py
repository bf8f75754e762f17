"""``efsgd protect views``: bounds of flows, the renderer by hand, and captures that are refused in one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.protect import nerf, views_run
from efsgd_jax.protect.captures import frame_of, read_capture, split, to_views
from efsgd_jax.protect.flow import Bounds, alike, keep_alike, random_flow, warp, within
from efsgd_jax.protect.likeness import psnr, ssim
from efsgd_jax.protect.views import Search, protect, without_camera_motion
from efsgd_jax.runs.release import pack

SIDE = 12
NETWORK = nerf.Options(width=16, depth=2, frequencies=3, samples=8, rays=64, steps=24, learning_rate=1e-2)
TINY = views_run.Settings(NETWORK, Search(warm_up=6, outer=3, inner=4), NETWORK._replace(width=12, steps=8))


def pose(angle):
    """A camera on a circle of radius 4 around (1, 2, 3) that looks at it."""
    back = np.array([np.cos(angle), np.sin(angle), 0.5]) / 1.25**0.5
    right = np.array([-np.sin(angle), np.cos(angle), 0.0])
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(back, right), back, np.array([1, 2, 3]) + 4 * back], axis=1)
    return matrix


def draw(path, count=5, side=SIDE, name="transforms.json"):
    """A capture of smooth random pictures."""
    rng = np.random.default_rng(count)
    frames = []
    (path / "train").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        small = rng.integers(256, size=(4, 4, 3), dtype=np.uint8)
        file = f"train/{name[:-5]}_{i}"
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path / f"{file}.png")
        frames.append({"file_path": f"./{file}", "transform_matrix": pose(2 * np.pi * i / count).tolist()})
    (path / name).write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return path


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def done(capture, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    return out, views_run.protect_capture(capture, out, max_shift=0.75, settings=TINY)


def views_of(capture):
    found, _ = read_capture(capture)
    return to_views(found, frame_of(found))


def changed(path, change):
    listed = json.loads((path / "transforms.json").read_text())
    change(listed)
    (path / "transforms.json").write_text(json.dumps(listed))


# The warp, and its bounds.


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


def test_pictures_stay_alike_and_a_flow_that_already_does_is_kept(capture):
    colours = views_of(capture).colours
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


# The renderer.


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


def test_what_a_moved_camera_explains_does_not_count(capture):
    """A picture that is shifted a little differs by what a turned camera explains; other differences stay."""
    views = views_of(capture)
    shifted = warp(views.colours, jnp.broadcast_to(jnp.array([0.1, -0.05]), (*views.colours.shape[:3], 2)))
    error = (shifted - views.colours)[:, 1:-1, 1:-1]
    left = without_camera_motion(shifted - views.colours, views)[:, 1:-1, 1:-1]
    assert float(jnp.sum(jnp.square(left))) < 0.3 * float(jnp.sum(jnp.square(error)))
    other = random_flow((*views.colours.shape[:3], 2), 0.1, jax.random.key(0))
    error = warp(views.colours, other) - views.colours
    left = without_camera_motion(error, views)
    assert float(jnp.sum(jnp.square(left))) > 0.5 * float(jnp.sum(jnp.square(error)))


# The whole.


def test_what_is_written_keeps_the_bounds_and_reads_again(capture, done):
    out, result = done
    assert np.linalg.norm(result.flow.astype(np.float64), axis=-1).max() <= 0.75
    assert np.abs(result.flow).max() > 0
    before, (after, held_out) = read_capture(capture)[0], read_capture(out)
    np.testing.assert_array_equal(after.poses, before.poses)
    assert after.angle == before.angle
    assert after.files == before.files
    assert held_out is None
    a, b = (jnp.asarray(x.pictures / 255, jnp.float32) for x in (after, before))
    assert float(psnr(a, b).min()) >= 26
    assert float(ssim(a, b).min()) >= 0.9
    assert not np.array_equal(after.pictures, before.pictures)


def test_the_statement_has_every_attack_and_the_numbers_of_this_run(done):
    out, result = done
    text = (out / "PROTECTION.md").read_text()
    for name in ("clean views", "random flow", "cameras refined", "10% of them", "25% of them"):
        assert name in text
    for outcome in result.report.outcomes:
        assert f"| {outcome.attack} | {outcome.psnr:.3g} |" in text
    assert "every eighth view" in text
    assert "does not learn this scene" in text


def test_the_same_seed_gives_the_same_bytes(capture, done, tmp_path):
    out, _ = done
    views_run.protect_capture(capture, tmp_path / "again", max_shift=0.75, settings=TINY)
    for file in sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file()):
        assert (out / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    views = views_of(capture)
    other = protect(views, NETWORK._replace(seed=1), TINY.search, Bounds(0.75))
    assert not np.array_equal(other, done[1].flow)


def test_release_refuses_protected_views_by_name(done, tmp_path):
    with pytest.raises(UserError, match=r"efsgd protect views.*not differential privacy"):
        pack(done[0], tmp_path / "out.zip")


def test_the_command_says_what_it_found(capture, tmp_path, capsys, monkeypatch):
    defaults = views_run.protect_capture.__kwdefaults__
    monkeypatch.setitem(defaults, "settings", TINY)
    assert main(["protect", "views", str(capture), f"--out={tmp_path / 'out'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["guarantee"] == "none"
    assert found["drop"] == pytest.approx(found["outcomes"][0]["psnr"] - found["outcomes"][2]["psnr"])
    assert main(["protect", "views", str(capture), f"--out={tmp_path / 'text'}"]) == 0
    text = capsys.readouterr().out
    assert "not differential privacy" in text
    assert "say little" in text  # such a tiny NeRF does not learn random pictures


# Captures.


def test_held_out_views_are_those_that_are_listed_or_every_eighth(tmp_path):
    path = draw(tmp_path, count=10)
    index, held_out = split(*read_capture(path))
    assert index.tolist() == [1, 2, 3, 4, 5, 6, 7, 9]
    assert held_out.files == ("train/transforms_0.png", "train/transforms_8.png")
    draw(path, count=3, name="transforms_test.json")
    index, held_out = split(*read_capture(path))
    assert len(index) == 10
    assert len(held_out.files) == 3


def test_the_scene_is_where_the_cameras_look(capture):
    found, _ = read_capture(capture)
    frame = frame_of(found)
    np.testing.assert_allclose(frame.centre, [1, 2, 3], atol=1e-9)
    assert frame.radius == pytest.approx(2)
    np.testing.assert_allclose(np.linalg.norm(to_views(found, frame).poses[:, :, 3], axis=1), 2, rtol=1e-6)


def test_transparent_pixels_are_white_and_grey_pictures_are_read(tmp_path):
    path = draw(tmp_path)
    Image.fromarray(np.zeros((SIDE, SIDE, 4), np.uint8)).save(path / "train/transforms_0.png")
    Image.fromarray(np.full((SIDE, SIDE), 50, np.uint8)).save(path / "train/transforms_1.png")
    found, _ = read_capture(path)
    assert (found.pictures[0] == 255).all()
    assert (found.pictures[1] == 50).all()


def few(path):
    changed(path, lambda listed: listed.update(frames=listed["frames"][:1]))


def no_pose(path):
    changed(path, lambda listed: listed["frames"][2].pop("transform_matrix"))


def bad_pose(path):
    changed(path, lambda listed: listed["frames"][2].update(transform_matrix=[[1, 2], [3, 4]]))


def sheared(path):
    changed(path, lambda listed: listed["frames"][1]["transform_matrix"][0].__setitem__(0, 3.0))


def same_direction(path):
    changed(path, lambda listed: [f.update(transform_matrix=np.eye(4).tolist()) for f in listed["frames"]])


def one_point(path):
    def move(listed):
        for frame in listed["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[3] = 0.0

    changed(path, move)


def no_angle(path):
    changed(path, lambda listed: listed.pop("camera_angle_x"))


def wide(path):
    changed(path, lambda listed: listed.update(camera_angle_x=40.0))


def other_size(path):
    Image.new("RGB", (SIDE + 1, SIDE)).save(path / "train/transforms_3.png")


def missing(path):
    (path / "train/transforms_3.png").unlink()


def not_a_picture(path):
    (path / "train/transforms_3.png").write_text("no picture")


def outside(path):
    changed(path, lambda listed: listed["frames"][0].update(file_path="../secret"))


def twice(path):
    changed(path, lambda listed: listed["frames"][0].update(file_path="train/transforms_1"))


def not_json(path):
    (path / "transforms.json").write_text("{")


def no_list(path):
    (path / "transforms.json").unlink()


def smaller(path):
    draw(path, side=6)


def larger(path):
    draw(path, side=256)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (few, ["has 1 view", "at least 4"]),
        (no_pose, ["frame 2", "no pose"]),
        (bad_pose, ["frame 2", "4x4"]),
        (sheared, ["frame 1", "not a rotation"]),
        (same_direction, ["same direction"]),
        (one_point, ["one point"]),
        (no_angle, ["camera_angle_x"]),
        (wide, ["camera_angle_x is 40.0"]),
        (other_size, ["frame 3", "13x12", "same size"]),
        (missing, ["frame 3", "no picture"]),
        (not_a_picture, ["frame 3", "cannot read"]),
        (outside, ["frame 0", "../secret"]),
        (twice, ["two frames", "transforms_1.png"]),
        (not_json, ["must be JSON"]),
        (no_list, ["no transforms.json"]),
        (smaller, ["6x6", "smallest side is 8"]),
        (larger, ["256x256", "131072 pixels"]),
    ],
)
def test_a_bad_capture_is_one_line(spoil, words, tmp_path, capsys):
    path = draw(tmp_path / "capture")
    spoil(path)
    fails([str(path), f"--out={tmp_path / 'out'}"], words, capsys)
    assert not (tmp_path / "out").exists()


def fails(argv, words, capsys):
    assert main(["protect", "views", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    for word in ["error: ", *words]:
        assert word in err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--max_shift=0", ["longest shift is 0"]),
        ("--max_shift=nan", ["longest shift is nan"]),
        ("--max_shift=9", ["longest shift is 9"]),
        ("--seed=-1", ["seed is -1"]),
        ("--radius=1", ["--radius=1"]),
    ],
)
def test_a_bad_option_is_one_line(flag, words, capture, tmp_path, capsys):
    fails([str(capture), f"--out={tmp_path / 'out'}", flag], words, capsys)


def test_a_place_that_is_taken_is_refused_before_work_starts(capture, tmp_path, capsys):
    (tmp_path / "note").write_text("mine")
    fails([str(capture), f"--out={tmp_path}"], ["not an empty directory"], capsys)
    fails([str(tmp_path / "nowhere"), f"--out={tmp_path / 'out'}"], ["not a directory"], capsys)
