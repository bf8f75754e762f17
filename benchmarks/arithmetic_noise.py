"""What the arithmetic of noise costs: float32 ``jax.random.normal``, as optax and jax-privacy have it, and ours.

    python benchmarks/arithmetic_noise.py --out=benchmarks/results/arithmetic_noise.json

Three attacks at one sigma. Deltas: float32's normal ends at 5.22 standard deviations, and an example that moves a
coordinate pushes it beyond, which without the example is impossible. Draws: the same, with every library's transform.
Low bits (Mironov, 2012): of sums 0 and 1, which noisy outputs one can give and the other cannot. Laws come by
enumeration (``noise_law``). About 5 minutes on 2 CPU cores.
"""

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax_privacy import noise_addition
from noise_law import float_normals, tail
from provenance import provenance
from scipy import stats
from timing import write_record

from efsgd_jax.privacy import noise
from efsgd_jax.privacy.accounting import epsilon, gaussian_event
from efsgd_jax.privacy.calibration import calibrate_noise_multiplier
from efsgd_jax.privacy.dp_sgd_events import dp_sgd_event
from efsgd_jax.privacy.gaussian_table import LARGEST

LARGEST_NOISE = LARGEST * sum(noise.BASE**j for j in range(noise.DIGITS))
DELTA, PARAMETERS, CHUNK = 1e-5, 10_000_000, 2_000_000
EXAMPLES = 60_000
# Claimed epsilon, noise multiplier (None: calibrated), batch, steps. A batch of all records is one release.
MECHANISMS = {
    "one Gaussian release": (10.0, None, EXAMPLES, 1),
    "DP-SGD, B 512, T 5,000": (10.0, 0.656, 512, 5000),
    "DP-SGD, B 256, T 4,000": (10.0, 0.5433, 256, 4000),
    "DP-SGD, B 128, T 20,000": (10.0, None, 128, 20_000),
    "DP-SGD, B 512, T 5,000, epsilon 1": (1.0, None, 512, 5000),
    "DP-SGD, B 256, T 4,000, epsilon 1": (1.0, None, 256, 4000),
}
Draw = Callable[[jax.Array, float, float, int], jax.Array]


def float_delta(sigma: float, share: float, steps: int) -> float:
    """The chance that an example makes one of the outputs larger than all that are possible without it."""
    values = float_normals()
    without, with_it = np.float32(sigma) * values[-1], np.float32(1) + np.float32(sigma) * values
    beyond = float(np.mean(with_it > without))
    return -math.expm1(steps * math.log1p(-share * beyond))


def deltas() -> dict[str, Any]:
    table = {}
    for name, (claimed, sigma, batch, steps) in MECHANISMS.items():
        q = batch / EXAMPLES

        def event(s: float, q: float = q, steps: int = steps) -> Any:
            return gaussian_event(s) if q == 1 else dp_sgd_event(q, s, steps)

        sigma = sigma or calibrate_noise_multiplier(event, claimed, DELTA)
        table[name] = {
            "epsilon": epsilon(event(sigma), DELTA), "delta": DELTA, "sigma": sigma,
            "float32 delta, at least": float_delta(sigma, q, steps),
            "ours adds to delta, at most": noise.deviation(claimed, PARAMETERS * steps),
        }  # fmt: skip
    return table


def from_optax(key: jax.Array, value: float, sigma: float, count: int) -> jax.Array:
    # One gradient of so large a norm that nothing is clipped: each coordinate is a release of its own.
    norm = math.sqrt(count)
    tx = optax.contrib.differentially_private_aggregate(norm, sigma / norm, key)
    return tx.update([jnp.full((1, count), value)], tx.init(None))[0][0]


def from_jax_privacy(key: jax.Array, value: float, sigma: float, count: int) -> jax.Array:
    privatizer = noise_addition.gaussian_privatizer(stddev=sigma, prng_key=key)
    return privatizer.update(jnp.full(count, value), privatizer.init(jnp.zeros(count)))[0]


def from_ours(key: jax.Array, value: float, sigma: float, count: int) -> jax.Array:
    return noise.add_noise(key, jnp.full(count, value), noise.lattice_unit(sigma, 1, 1.0))


SAMPLERS: dict[str, Draw] = {"optax": from_optax, "jax-privacy": from_jax_privacy, "efsgd_jax": from_ours}


def beyond(draw: Draw, sigma: float, draws: int, value: float) -> int:
    """How many of ``draws`` releases of ``value`` are above everything that float32's normal gives without it."""
    bound = np.float32(sigma) * float_normals()[-1]
    count = jax.jit(lambda key: jnp.sum(draw(key, value, sigma, CHUNK) > bound))
    keys = jax.random.split(jax.random.key(1 + int(value)), -(-draws // CHUNK))
    return sum(int(count(key)) for key in keys)


def attack(draw: Draw, sigma: float, draws: int, claimed: float, without: float) -> dict[str, Any]:
    """``delta >= P(beyond | with) - exp(epsilon) P(beyond | without)``: the second by enumeration."""
    found = {"without": beyond(draw, sigma, draws, 0.0), "with": beyond(draw, sigma, draws, 1.0)}
    total = -(-draws // CHUNK) * CHUNK
    least = float(stats.beta.ppf(0.05, found["with"], total - found["with"] + 1)) - math.exp(claimed) * without
    return {
        **found,
        "draws": total,
        "P(beyond) without": without,
        "delta, at least": max(least, 0.0),
        "refuted": bool(least > DELTA),
    }


def law_of_ours(sigma: float, claimed: float) -> dict[str, Any]:
    """Tails against the Gaussian's, and delta itself for one coordinate that moves by 1: the likelihood ratio rises, so
    that the worst event is a tail."""
    ratios = {f"{s} sigma": tail(s * noise.NOISE_WIDTH) / stats.norm.sf(s) - 1 for s in (5, 6, 8, 10)}
    unit = float(noise.lattice_unit(sigma, 1, 1.0))
    shift = math.floor(1 / unit) + 1
    where = shift / 2 + claimed * noise.NOISE_WIDTH**2 / shift
    events = [where + step for step in np.linspace(-0.001, 0.001, 5) * noise.NOISE_WIDTH]
    delta = max(tail(t - shift) - math.exp(claimed) * tail(t) for t in events)
    ideal = stats.norm.sf(claimed * sigma - 0.5 / sigma) - math.exp(claimed) * stats.norm.sf(
        claimed * sigma + 0.5 / sigma
    )
    return {
        "tail over the Gaussian's, less 1": ratios,
        "events beyond 5.22 in 1e9 draws": 1e9 * tail(float(float_normals()[-1]) * noise.NOISE_WIDTH),
        "largest, in sigmas": LARGEST_NOISE / noise.NOISE_WIDTH,
        "delta": delta, "delta of the Gaussian": ideal,
    }  # fmt: skip


def low_bits(sigma: float, draws: int) -> dict[str, Any]:
    """The share of outputs that say for certain that the sum was 0, or 1: no epsilon covers them."""
    values = np.float32(sigma) * float_normals()
    zero, one = values, np.float32(1) + values
    unit = noise.lattice_unit(sigma, 1, 1.0)
    of_ours = {}
    for value in (0.0, 1.0):
        key = jax.random.key(2)
        out = np.asarray(jax.jit(lambda key, v=value: from_ours(key, v, sigma, draws))(key))
        z = np.int64(jax.jit(lambda key: noise.lattice_noise(key, (draws,)))(key))
        number = z + int(np.round(np.float32(value) * (np.float32(1) / np.float32(unit))))
        high, low = np.float32(number >> 24), np.float32(number & (2**24 - 1))
        want = (high * np.float32(2**24) + low) * np.float32(unit)
        of_ours[f"{value:g}"] = float(np.mean(want == np.float32(out)))
    return {
        "float32": {
            "of outputs of 0, impossible for 1": float(1 - np.mean(np.isin(zero, one))),
            "of outputs of 1, impossible for 0": float(1 - np.mean(np.isin(one, zero))),
        },
        "ours": {
            # All whole numbers up to the largest are possible: the sum moves both ends.
            "of outputs of 0, impossible for 1": tail(LARGEST_NOISE - math.ceil(1 / float(unit)) - 1),
            "share of outputs that are the same function of the whole number": of_ours,
        },
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000_000, help="of each sampler, with the example and without")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    values = float_normals()
    record: dict[str, Any] = {**provenance(), "range": [float(values[0]), float(values[-1])], "values": len(values)}
    record["deltas"] = deltas()
    for name, row in record["deltas"].items():
        print(f"{name:36s}", "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    claimed = MECHANISMS["one Gaussian release"][0]
    sigma = record["deltas"]["one Gaussian release"]["sigma"]
    ours = tail(float(values[-1]) * sigma / float(noise.lattice_unit(sigma, 1, 1.0)))
    record["attacks"] = {
        name: attack(draw, sigma, args.draws, claimed, ours if name == "efsgd_jax" else 0.0)
        for name, draw in SAMPLERS.items()
    }
    for name, row in record["attacks"].items():
        print(f"{name:12s}", row, flush=True)
    record["law of ours"] = law_of_ours(sigma, claimed)
    record["low bits"] = low_bits(sigma, 1_000_000)
    for part in ("law of ours", "low bits"):
        print(part, record[part], flush=True)
    write_record(args.out, record)
    return int(record["attacks"]["efsgd_jax"]["refuted"])


if __name__ == "__main__":
    sys.exit(main())
