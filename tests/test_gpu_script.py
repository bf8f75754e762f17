"""The command for an accelerator, tried as a whole on a CPU with tiny sizes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def run(out, *arguments):
    env = {**os.environ, "OUT": str(out), "PYTHON": sys.executable}
    command = ["bash", "benchmarks/gpu.sh", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)


def test_images_are_trained_drawn_and_scored(tmp_path):
    done = run(tmp_path, "--part=images", "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((tmp_path / "images/scores.json").read_text())
    assert 9 < scores["epsilon"] <= 10
    assert scores["tiny"]
    with np.load(tmp_path / "images/samples.npz") as samples:
        assert samples["x_train"].shape[1:] == (8, 8)
    assert (tmp_path / "images/grid.png").is_file()
    # The same command again finds the finished run.
    assert run(tmp_path, "--part=images", "--tiny").returncode == 0


def test_the_speed_of_a_step_is_measured(tmp_path):
    done = run(tmp_path, "--part=speed", "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "arithmetic_cost.json").read_text())
    assert json.loads((tmp_path / "training_step.json").read_text())
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert {"peak", "members", "critic float32 16", "denoiser bfloat16 16", "transformer float32 16"} <= set(rows)
    assert not [row["error"] for row in rows.values() if "error" in row]


def test_a_wrong_argument_is_named(tmp_path):
    done = run(tmp_path, "--part=image")
    assert done.returncode == 2
    assert "--part=image is unknown" in done.stderr
