"""Clipping inside of a caller's own ``jax.shard_map``: JAX sums gradients of shared parameters unless told not to."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from efsgd_jax.privacy import clip_and_sum, clipped_grad

EVERYWHERE, ROWS = PartitionSpec(), PartitionSpec("data")
X = jnp.arange(24.0).reshape(8, 3) + 1


def loss(params, example, key):
    return jnp.vdot(jnp.tanh(params["w"] @ example), params["v"]), None


PARAMS = {"w": jnp.eye(3) / 50, "v": jnp.ones(3)}
KEYS = jax.random.split(jax.random.key(0), 8)


def test_all_of_this_file_on_four_devices():
    if jax.device_count() >= 4:
        return  # this is it
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "." * 19 in done.stdout  # all of them, none skipped


@pytest.fixture(params=["auto", "explicit"])
def mesh(request):
    if jax.device_count() < 4:
        pytest.skip("runs in a process with four devices, started by the first test")
    kind = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}[request.param]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        yield mesh


@pytest.mark.parametrize("method", ["vmap", "ghost"])
@pytest.mark.parametrize("microbatch_size", [None, 1])
@pytest.mark.parametrize("check", [True, False])
def test_each_device_clips_its_own_rows(mesh, method, microbatch_size, check):
    def share(params, x, keys):
        own = clipped_grad(loss, 1.0, method=method, microbatch_size=microbatch_size)(params, x, keys)
        return jax.lax.psum(own.clipped_sum, "data"), own.l2_norms

    rows = jax.sharding.NamedSharding(mesh, ROWS)
    f = jax.shard_map(
        share, mesh=mesh, in_specs=(EVERYWHERE, ROWS, ROWS), out_specs=(EVERYWHERE, ROWS), check_vma=check
    )
    sums, norms = jax.jit(f)(PARAMS, *jax.device_put((X, KEYS), rows))
    want = clipped_grad(loss, 1.0, method="vmap", microbatch_size=None)(PARAMS, X, KEYS)
    np.testing.assert_allclose(norms, want.l2_norms, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), sums, want.clipped_sum)


def test_gradients_that_were_summed_over_devices_are_refused(mesh):
    def share(params, x):
        each = jax.vmap(jax.grad(lambda p, x: loss(p, x, None)[0]), (None, 0))(params, x)
        return jax.lax.psum(clip_and_sum(each, 1.0).clipped_sum, "data")

    rows = jax.device_put(X, jax.sharding.NamedSharding(mesh, ROWS))
    with pytest.raises(ValueError, match="summed them over the devices before"):
        jax.shard_map(share, mesh=mesh, in_specs=(EVERYWHERE, ROWS), out_specs=EVERYWHERE)(PARAMS, rows)
    # Without the check JAX sums nothing.
    jax.jit(jax.shard_map(share, mesh=mesh, in_specs=(EVERYWHERE, ROWS), out_specs=EVERYWHERE, check_vma=False))(
        PARAMS, rows
    )
