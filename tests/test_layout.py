"""Networks that are divided among devices: where their numbers are, and that a divided run is the same run."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_devices import AFTER_A_MIXTURE, assert_same_release, released, start, start_two, train_on_one_eight_and_two
from test_step_cost import SMALL

from efsgd_jax.synthesizers.base import Phase
from efsgd_jax.training.layout import bytes_of_each, layout

WIDE = ["method.name=efsgd_mixture", *AFTER_A_MIXTURE, "method.width=48", "train.divide_above=0"]
MESH = jax.sharding.AbstractMesh((8,), ("data",))


def shapes(**sides):
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in sides.items()}


def phase_of(parameters):
    return Phase(None, None, None, release=None, parameters=lambda state: {k: state[k] for k in parameters})


def test_arrays_like_large_parameters_are_divided_along_their_longest_side():
    state = {
        **shapes(w=(160, 512), moment=(160, 512), odd=(511, 333), bias=(512,), mixture=(4096, 64)),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    phase = phase_of(["w", "odd", "bias"])
    placed = layout(phase, state, MESH, divide_above=0)
    assert {k: tuple(v.spec) for k, v in placed.items()} == {
        "w": (None, "data"),
        "moment": (None, "data"),
        "odd": (),  # no side is a multiple of 8
        "bias": (),  # too small
        "mixture": (),  # no parameter has this shape
        "key": (),
    }
    whole = bytes_of_each({k: v for k, v in state.items() if k != "key"}, None)
    assert whole == 4 * (2 * 160 * 512 + 511 * 333 + 512 + 4096 * 64)
    divided = bytes_of_each({"w": state["w"]}, {"w": placed["w"]})
    assert divided == 4 * 160 * 512 // 8


def test_few_parameters_are_copied_and_a_single_device_has_no_layout():
    state = shapes(w=(160, 512))
    count = 160 * 512
    for above, spec in ((count - 1, (None, "data")), (count, ())):
        assert tuple(layout(phase_of(["w"]), state, MESH, above)["w"].spec) == spec
    assert layout(phase_of(["w"]), state, None, 0) is None


def test_a_plan_of_a_divided_network_gathers_its_parameters_once():
    flags = [*SMALL, "--config.method.width=48", "--devices=8", "--json"]
    command = [sys.executable, "-m", "efsgd_jax", "plan", *flags]
    whole, divided = (
        json.loads(subprocess.run([*command, *more], capture_output=True, text=True, env=os.environ, check=True).stdout)
        for more in ([], ["--config.train.divide_above=0"])
    )
    # The two convolutions of a block; parameters, their average and two moments.
    large = 2 * 3 * 3 * 48 * 48 * 4
    assert whole[0]["held"] - divided[0]["held"] == 4 * large * 7 // 8
    gathered = [cost[0]["exchanged"].get("all-gather", 0) for cost in (whole, divided)]
    assert gathered[1] - gathered[0] == large


@pytest.mark.slow
def test_a_divided_network_is_the_same_on_one_device_eight_devices_and_two_processes(tmp_path):
    train_on_one_eight_and_two(tmp_path, overrides=WIDE)
    assert_same_release(tmp_path)


@pytest.mark.slow
def test_a_divided_run_that_was_stopped_goes_on(tmp_path):
    """Two processes that hold a half each are stopped after a checkpoint; two others go on, as one device would."""
    long = [*WIDE, "train.steps=200"]
    whole = start(tmp_path / "one", overrides=long)
    assert whole.wait(timeout=600) == 0
    kept = tmp_path / "run/private/checkpoints"
    processes = start_two(tmp_path / "run", overrides=long)
    try:
        while not list(kept.glob("00000002*")):
            assert all(process.poll() is None for process in processes), processes[0].communicate()
        processes[1].terminate()
        assert [process.wait(timeout=300) for process in processes] == [143, 143]
        processes = start_two(tmp_path / "run", overrides=long)
        said = [process.communicate(timeout=600)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    finally:
        for process in processes:
            process.kill()
    one, two = released(tmp_path / "one"), released(tmp_path / "run")
    assert np.linalg.norm(two - one) <= 1e-5 * np.linalg.norm(one)
