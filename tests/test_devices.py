"""One device, eight of them, and two processes: the same run."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from jax.flatten_util import ravel_pytree

from efsgd_jax import UserError, default_config
from efsgd_jax.cli.parser import read_config
from efsgd_jax.privacy import clipped_grad
from efsgd_jax.runs.prepare import prepare_data
from efsgd_jax.training.checkpoints import Checkpoints
from efsgd_jax.training.setup import mesh_for, prepare

STEPS = 20
CONFIG = "preset:digits"
OVERRIDES = [
    "method.name=efsgd_gan",
    f"train.steps={STEPS}", "train.grid_every=10", "train.seed=3", "train.expected_batch_size=32",
    "method.generator_width=4", "method.discriminator_width=4", "method.encoder_width=4", "method.max_width=8",
    "method.generated_batch_size=16", "method.microbatch_size=8", "method.features=8", "method.latent=4",
    "privacy.feedback=local", "privacy.feedback_l2_norm_clip=1.3",
]  # fmt: skip


# Networks that DP-SGD trains after the releases of a mixture.
AFTER_A_MIXTURE = [
    f"train.steps={STEPS}", "train.grid_every=10", "train.seed=3", "train.expected_batch_size=32",
    "method.width=8", "method.microbatch_size=8", "method.directions=10", "method.components=2",
    "privacy.feedback=local", "privacy.feedback_l2_norm_clip=0.3",
]  # fmt: skip


def start(workdir, *flags, overrides=OVERRIDES, **environment):
    command = [sys.executable, "-m", "efsgd_jax.train", f"--config={CONFIG}", f"--workdir={workdir}", *flags]
    command[5:5] = [f"--config.{override}" for override in overrides]
    environment["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " " + environment.get("XLA_FLAGS", "")
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def last_state(workdir):
    """Parameters and residuals after the last step, as one vector; the noise is in them."""
    (phase,) = prepare(read_config(CONFIG, OVERRIDES)).phases
    checkpoints = Checkpoints(workdir / "private" / "checkpoints")
    like = {"released": {}, "state": jax.jit(phase.init)(jax.random.key(0), {})}
    step, kept = checkpoints.restore(lambda _: like)
    assert step == STEPS
    state = kept["state"]
    return np.asarray(ravel_pytree((state.params, state.residual))[0])


def released(workdir):
    """All that is published, as one vector."""
    tree = serialization.msgpack_restore((workdir / "release/generator.msgpack").read_bytes())
    return np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree) if hasattr(x, "dtype")])


def assert_same_release(directory):
    """What ``train_on_one_eight_and_two`` published there, up to rounding."""
    one, eight, two = (released(directory / name) for name in ("one", "eight", "two"))
    for other in (eight, two):
        assert np.linalg.norm(other - one) <= 1e-5 * np.linalg.norm(one)


def start_two(workdir, *flags, **options):
    """Two processes that train together."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(workdir, "--distributed", *flags, JAX_PROCESS_ID=str(i), **together, **options) for i in (0, 1)]


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_at_the_same_step(tmp_path):
    processes = start_two(tmp_path / "run", "--config.train.steps=1000")
    kept = tmp_path / "run/private/checkpoints"
    try:
        while not list(kept.glob("0*")):
            assert all(process.poll() is None for process in processes), processes[0].communicate()
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    step = max(int(path.stem) for path in kept.glob("0*"))
    assert all(f"stopped at step {step} of 1000" in text for text in said), said
    assert [process.returncode for process in processes] == [143, 143]


@pytest.mark.slow
def test_one_device_eight_devices_and_two_processes_train_the_same_generator(tmp_path):
    train_on_one_eight_and_two(tmp_path)
    one, eight, two = (last_state(tmp_path / name) for name in ("one", "eight", "two"))
    for other in (eight, two):
        assert np.linalg.norm(other - one) <= 1e-5 * np.linalg.norm(one)
        np.testing.assert_allclose(other, one, atol=1e-4)
    assert (tmp_path / "two" / "release" / "generator.msgpack").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["efsgd_mixture", "p3gm", "private_diffusion"])
def test_networks_after_a_mixture_are_the_same_on_one_device_eight_devices_and_two_processes(tmp_path, method):
    train_on_one_eight_and_two(tmp_path, overrides=[f"method.name={method}", *AFTER_A_MIXTURE])
    assert_same_release(tmp_path)


@pytest.mark.slow
def test_a_mixture_is_the_same_on_one_device_eight_devices_and_two_processes(tmp_path):
    """Its sums are, bit for bit (``test_divided_sums.py``); what is computed from them is rounded by each program."""
    options = ["method.name=gaussian_mixture", "train.seed=3", "method.directions=10", "method.components=2"]
    train_on_one_eight_and_two(tmp_path, overrides=options)
    assert_same_release(tmp_path)


@pytest.mark.slow
def test_images_on_disk_are_read_by_the_device_that_clips_them(tmp_path):
    config = read_config(CONFIG, [])
    prepare_data(config, tmp_path / "prepared", progress=False)
    on_disk = ["data.name=prepared", f"data.path={tmp_path / 'prepared'}"]
    overrides = ["method.name=efsgd_mixture", *AFTER_A_MIXTURE]
    train_on_one_eight_and_two(tmp_path, overrides=[*overrides, *on_disk])
    process = start(tmp_path / "memory", overrides=overrides)
    assert process.wait(timeout=600) == 0
    memory, one, eight, two = (released(tmp_path / name) for name in ("memory", "one", "eight", "two"))
    assert np.array_equal(memory, one)
    for other in (eight, two):
        assert np.linalg.norm(other - one) <= 1e-5 * np.linalg.norm(one)


def train_on_one_eight_and_two(directory, **options):
    """In turn: on two cores, all together would wait for each other."""
    eight = "--xla_force_host_platform_device_count=8"
    for begin in (
        lambda: [start(directory / "one", **options)],
        lambda: [start(directory / "eight", XLA_FLAGS=eight, **options)],
        lambda: start_two(directory / "two", **options),
    ):
        processes = begin()
        try:
            for process in processes:
                output, _ = process.communicate(timeout=600)
                assert process.returncode == 0, output
        finally:
            for process in processes:
                process.kill()


def test_rows_are_dealt_and_come_back_in_order():
    """On a mesh of one device here; of eight in the test above."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def loss(params, x, key):
        return jnp.sum(jnp.tanh(params * x)) * (1 + jax.random.uniform(key)), {"x": x}

    x, mask = jax.random.normal(jax.random.key(0), (7, 3)), jnp.arange(7) != 4
    arguments = jnp.ones(3), x, jax.random.split(jax.random.key(1), 7), mask
    want = clipped_grad(loss, 0.5, outer_l2_norm_clip=1.0)(*arguments)
    got = jax.jit(clipped_grad(loss, 0.5, outer_l2_norm_clip=1.0, mesh=mesh))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)


def test_what_devices_cannot_share_is_refused(monkeypatch):
    mesh = jax.sharding.AbstractMesh((3,), ("data",))
    monkeypatch.setattr("efsgd_jax.training.setup.data_mesh", lambda: mesh)
    with pytest.raises(UserError, match=r"generated_batch_size is 64.*3 devices.*multiple of 3"):
        prepare(default_config())
    assert mesh_for(default_config("sanitized_gan")) is None
    with pytest.raises(ValueError, match="'data'"):
        clipped_grad(lambda *_: (0.0, None), 1.0, mesh=jax.sharding.AbstractMesh((3,), ("rows",)))
