"""Captures of ``efsgd protect views``: what is read and held out, and what is refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image
from small_captures import SIDE, draw

from efsgd_jax.cli.main import main
from efsgd_jax.protect.captures import frame_of, read_capture, split, to_views


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("capture"))


def changed(path, change):
    listed = json.loads((path / "transforms.json").read_text())
    change(listed)
    (path / "transforms.json").write_text(json.dumps(listed))


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


def test_16_bit_grey_is_scaled_to_8_bits(tmp_path):
    path = draw(tmp_path)
    grey = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    Image.fromarray(grey).save(path / "train/transforms_0.png")
    picture = read_capture(path)[0].pictures[0]
    np.testing.assert_array_equal(picture, np.repeat(grey[..., None] // 257, 3, axis=-1))


def test_home_is_known_in_both_places(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    few(draw(tmp_path / "capture"))
    fails(["~/capture", "--out=~/new"], [str(tmp_path / "capture"), "has 1 view"], capsys)
    fails(["~/capture", "--out=~/capture"], [f"{tmp_path / 'capture'} ", "not an empty directory"], capsys)


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


def deep(path):
    (path / "transforms.json").write_text("[" * 100_000)


def true_angle(path):
    changed(path, lambda listed: listed.update(camera_angle_x=True))


def narrow(path):
    changed(path, lambda listed: listed.update(camera_angle_x=1e-7))


def narrowest(path):
    changed(path, lambda listed: listed.update(camera_angle_x=5e-324))


def long_name(path):
    changed(path, lambda listed: listed["frames"][0].update(file_path="x" * 5000))


def two_lines(path):
    changed(path, lambda listed: listed["frames"][0].update(file_path="a\nb\ud800"))


def renamed(path, names):
    """Gives the first pictures other names."""
    for i, name in enumerate(names):
        (path / name).parent.mkdir(exist_ok=True)
        (path / f"train/transforms_{i}.png").rename(path / name)
        changed(path, lambda listed, i=i, name=name: listed["frames"][i].update(file_path=name))


def in_a_picture(path):
    renamed(path, ["q.jpg", "q.png/z.png"])


def as_the_sheet(path):
    renamed(path, ["Held_out.jpg"])


def in_the_statement(path):
    renamed(path, ["PROTECTION.md/a.png"])


def floats(path):
    Image.fromarray(np.zeros((SIDE, SIDE), np.float32)).save(path / "train/transforms_3.png", format="TIFF")


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
        (same_direction, ["transforms.json: all", "same direction"]),
        (one_point, ["transforms.json: all", "one point"]),
        (true_angle, ["transforms.json: camera_angle_x is True"]),
        (narrow, ["camera_angle_x is 1e-07", "at most 1e+06"]),
        (narrowest, ["camera_angle_x is 5e-324", "inf pixels"]),
        (long_name, ["frame 0", "5000 bytes", "rename"]),
        (two_lines, ["frame 0", "cannot be printed"]),
        (in_a_picture, ["q.png/z.png and q.png", "directory"]),
        (as_the_sheet, ["Held_out.png", "another name"]),
        (in_the_statement, ["PROTECTION.md/a.png", "another name"]),
        (floats, ["frame 3: ", "transforms_3.png has 32 bits per pixel; save it with 8 bits, in grey or in colours\n"]),
        (deep, ["cannot read", "must be JSON"]),
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
