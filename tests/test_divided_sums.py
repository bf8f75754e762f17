"""Full-batch sums that devices divide among themselves are those of one device, bit for bit."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.privacy.divided_sums import over_devices
from efsgd_jax.privacy.noise import LIMB_BITS, Integers

ON_EIGHT = """
import jax, jax.numpy as jnp, numpy as np
from typing import NamedTuple
from jax.sharding import Mesh
from efsgd_jax.privacy import FullBatchMechanism, OuterSum, SquareSum, VectorSum
from efsgd_jax.privacy.stored import Stored
from efsgd_jax.privacy.sum_terms import whole_factor

class Record(NamedTuple):
    x: jax.Array
    left: jax.Array
    label: jax.Array

rng, mesh = np.random.default_rng(0), Mesh(np.array(jax.devices()), ("data",))
for n in (1, 7, 8, 1003):
    x = rng.normal(size=(n, 5)).astype(np.float32)
    left = np.asarray(jax.vmap(lambda row: whole_factor(row, 2.0))(jnp.asarray(x)))
    records = Record(x, left, rng.integers(-1, 4, size=n).astype(np.int32))
    mechanism = FullBatchMechanism(n, 2.0)

    def step(records, key, centre, mesh):
        access = mechanism.open(records, key, 0, released={}, mesh=mesh)
        access.private_mean("mean", lambda r: r.x[0])
        vectors, squares = VectorSum(lambda r: r.x - centre, 1.0, 0.5), SquareSum(lambda r: r.x - centre, 1.0)
        first = access.release([vectors, squares], group=lambda r: r.label, num_groups=3, share=0.5)
        outer = OuterSum(lambda r: r.left, lambda r: jnp.tanh(r.x - centre), 2.0, 0.6)
        return first.values, access.release([outer], share=0.5).values, access.private_metrics()

    def run(records, mesh):
        if isinstance(records, Stored):
            return jax.jit(lambda key, c: step(records, key, c, mesh))(jax.random.key(3), jnp.full(5, 0.1))
        return jax.jit(lambda r, key, c: step(r, key, c, mesh))(records, jax.random.key(3), jnp.full(5, 0.1))

    memory = jax.tree.map(jnp.asarray, records)
    *one, metric = run(memory, None)
    for place in (memory, Stored(records)):
        *eight, other = run(place, mesh)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
            assert np.array_equal(a, b), (n, place)
        assert abs(metric["mean"] - other["mean"]) < 1e-5
print(len(jax.devices()), "devices")
"""


def test_eight_devices_release_what_one_releases():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "8 devices"


def test_integers_of_many_devices_are_added_without_overflow():
    """300 devices whose low parts are as large as they can be: their plain sum is above 2^31."""
    high = np.random.default_rng(0).integers(-(2**20), 2**20, size=(300, 4))
    low = np.full((300, 4), 2**LIMB_BITS - 1)
    low[:, 1] = 0
    parts = Integers(jnp.asarray(high, jnp.int32), jnp.asarray(low, jnp.int32))
    total = jax.vmap(over_devices, axis_name="data")([parts, jnp.ones(300)])
    want = (high.astype(object) * 2**LIMB_BITS + low).sum(axis=0)
    got = np.asarray(total[0].high[0]).astype(object) * 2**LIMB_BITS + np.asarray(total[0].low[0])
    assert got.tolist() == want.tolist()
    assert ((np.asarray(total[0].low) >= 0) & (np.asarray(total[0].low) < 2**LIMB_BITS)).all()
    assert float(total[1][0]) == 300.0
