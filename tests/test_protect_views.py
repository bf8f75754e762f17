"""``efsgd protect views``: the search does what it says, and what is written keeps its bounds and has no clean view."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_captures import NETWORK, TINY, draw, views_of

from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.protect import nerf, views_run
from efsgd_jax.protect.captures import frame_of, read_capture, to_views
from efsgd_jax.protect.flow import Bounds, keep_alike, random_flow, rounded, warp
from efsgd_jax.protect.likeness import psnr, ssim
from efsgd_jax.protect.views import Search, protect, step, warped, without_camera_motion
from efsgd_jax.protect.views_attacks import CLEAN, PROTECTED, RANDOM, SAME_LENGTHS, measure
from efsgd_jax.runs.release import pack

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from protect_views import write_scene


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def done(capture, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    return out, views_run.protect_capture(capture, out, max_shift=0.75, settings=TINY)


# The search.


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


@pytest.mark.parametrize("beyond_cameras", [False, True])
def test_a_step_brings_views_nearer_to_what_the_nerf_has_wrong(capture, beyond_cameras):
    """The objective of ``step``'s docstring, written anew, falls; no bound on likeness is near, and steps are short."""
    views, bounds = views_of(capture), Bounds(1.0, min_psnr=20.0, min_ssim=0.0)
    search = Search(inner=4, stride=0.02, beyond_cameras=beyond_cameras)
    before = 0.1 * random_flow((*views.colours.shape[:3], 2), 1.0, jax.random.key(0))
    state = nerf.start(views, NETWORK)
    state, after, square = nerf.compiled(step)(state, before, views, 0, NETWORK, search, bounds)
    error = nerf.render_views(state.learned["params"], views.poses, views.focal, NETWORK, views.shape) - views.colours
    np.testing.assert_allclose(square, np.mean(np.square(error)), rtol=1e-4)
    if beyond_cameras:
        error = without_camera_motion(error, views)
    length = np.sqrt(np.mean(np.square(error), axis=(1, 2, 3), keepdims=True))
    target = views.colours + 10 ** (-19 / 20) * error / length

    def distance(flow):
        return np.sum(np.square(warp(views.colours, flow) - target), axis=(1, 2, 3))

    assert (distance(after) < distance(before)).all()
    # More than an hundredth of the way that is left: a step that does next to nothing fails, too.
    assert distance(after).sum() < 0.99 * distance(before).sum()


@pytest.mark.slow
def test_a_nerf_learns_less_of_protected_views_than_of_randomly_bent_ones(tmp_path):
    """Three spheres, which a small NeRF does learn. Flows that go the wrong way cost it less than random."""
    write_scene(tmp_path, 16, 4, 16, 0)
    capture, held_out = read_capture(tmp_path)
    frame, bounds = frame_of(capture), Bounds()
    clean, held_out = to_views(capture, frame), to_views(held_out, frame)
    network = nerf.Options(width=32, depth=2, frequencies=4, samples=16, rays=256, steps=600, learning_rate=1e-2)
    flow = protect(clean, network, Search(warm_up=150, outer=30, inner=15), bounds)
    noise = keep_alike(clean.colours, random_flow(flow.shape, bounds.max_shift, jax.random.key(7)), bounds)
    victim = network._replace(width=40, steps=500, seed=1000)

    def learned(flow):
        bent = warped(clean, flow)
        return measure("", bent._replace(colours=rounded(bent.colours)), held_out, victim).psnr

    known, random, protected = map(learned, (0 * flow, noise, flow))
    assert known > 25
    assert known - random < known - protected - 0.3


# The whole.


def pictures_in(directory):
    """Every picture below a directory, uint8, by its name; one that was enlarged by a whole factor is made small."""
    for file in sorted(directory.rglob("*.png")):
        picture = np.asarray(Image.open(file).convert("RGB"))
        for factor in range(8, 0, -1):
            small = picture[::factor, ::factor]
            if np.array_equal(small.repeat(factor, 0).repeat(factor, 1)[: len(picture), : picture.shape[1]], picture):
                break
        yield file.name, small


def places_of(view, picture):
    """Where a view ``[S, S, 3]`` is a part of a larger picture, bit for bit."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, view.shape)
    return np.argwhere((windows == view).all(axis=(-3, -2, -1)))


@pytest.mark.parametrize("given", [False, True], ids=["every eighth", "transforms_test.json"])
def test_no_clean_view_is_in_the_directory_that_is_published(given, tmp_path):
    """Nor what a NeRF shows that learned from clean views or randomly bent ones: both undo a part."""
    path = draw(tmp_path / "capture", count=9)
    if given:
        draw(path, count=4, name="transforms_test.json")
    out, settings = tmp_path / "out", TINY._replace(search=Search(warm_up=2, outer=1, inner=1))
    report = views_run.protect_capture(path, out, settings=settings).report
    kept_back = [*(picture for found in read_capture(path) if found is not None for picture in found.pictures)]
    kept_back += [picture for name in (CLEAN, RANDOM, SAME_LENGTHS) for picture in report.of(name).shown]
    assert len(kept_back) == (9 + 4 + 3 * 4 if given else 9 + 3 * 2)
    names = []
    for name, picture in pictures_in(out):
        names.append(name)
        for view in kept_back:
            assert not len(places_of(view, picture)), name
        if name == views_run.PICTURE:  # so that the search for views does find those that are there
            assert all(len(places_of(view, picture)) for view in report.of(PROTECTED).shown)
            bent = read_capture(out)[0].pictures[::8]
            assert given or all(len(places_of(view, picture)) for view in bent)
    assert len(names) == 9 + 1
    assert {file.suffix for file in out.rglob("*") if file.is_file()} == {".png", ".json", ".md"}


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
    for name in ("clean views", "random flow", "of the same lengths", "cameras refined", "10% of them", "25% of them"):
        assert name in text
    mean, longest = result.shifts[PROTECTED]
    assert longest == pytest.approx(np.linalg.norm(result.flow, axis=-1).max(), rel=1e-5)
    assert result.shifts[SAME_LENGTHS] == pytest.approx((mean, longest), rel=1e-4)
    for name, (mean, longest) in result.shifts.items():
        assert f"| {name} | {mean:.3g} | {longest:.3g} |" in text
    for outcome in result.report.outcomes:
        assert f"| {outcome.attack} | {outcome.psnr:.3g} |" in text
    assert "every eighth view" in text
    assert "does not learn this scene" in text


def test_the_statement_is_there_before_the_first_view(capture, tmp_path, monkeypatch):
    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(views_run, "write_capture", full)
    with pytest.raises(UserError, match="the disk is full"):
        views_run.protect_capture(capture, tmp_path / "out", settings=TINY)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["PROTECTION.md", "protection.json"]


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
    reached = {outcome["attack"]: outcome["psnr"] for outcome in found["outcomes"]}
    assert found["drop"] == pytest.approx(reached[CLEAN] - reached[PROTECTED])
    assert found["more_than_random"] == pytest.approx(reached[RANDOM] - reached[PROTECTED])
    assert main(["protect", "views", str(capture), f"--out={tmp_path / 'text'}"]) == 0
    text = capsys.readouterr().out
    assert "not differential privacy" in text
    assert "say little" in text  # such a tiny NeRF does not learn random pictures
