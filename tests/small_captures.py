"""Captures of a few tiny views, and networks that learn from them in seconds."""

import json

import numpy as np
from PIL import Image

from efsgd_jax.protect import nerf, views_run
from efsgd_jax.protect.captures import frame_of, read_capture, to_views
from efsgd_jax.protect.views import Search

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


def views_of(capture):
    found, _ = read_capture(capture)
    return to_views(found, frame_of(found))
