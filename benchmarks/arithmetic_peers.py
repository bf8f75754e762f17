"""Where arithmetic, keys or composition void a guarantee: who has the fault, shown by running it, and ours beside.

    python benchmarks/arithmetic_peers.py --opacus=PYTHON --out=benchmarks/results/arithmetic_peers.json

``PYTHON`` is that of an environment with Opacus (optional; ``arithmetic_opacus.py`` runs there). Laws of noise and sums
of all examples have benchmarks of their own. One minute on 2 CPU cores.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax_privacy.clipping
import numpy as np
import optax
from jax_privacy import noise_addition
from noise_law import float_normals
from provenance import provenance
from timing import write_record

from efsgd_jax.privacy import clip_and_sum, error_feedback_aggregate, fresh_key, noise
from efsgd_jax.privacy.gaussian_table import LARGEST

aggregate = optax.contrib.differentially_private_aggregate
PARAMS = {"a": jnp.zeros(4), "b": jnp.zeros(3)}


def ours(noise_multiplier: float = 1.0, **options: Any) -> Any:
    return error_feedback_aggregate(1.0, noise_multiplier, fresh_key(), expected_batch_size=1, **options)


def refused(f: Callable[[], Any]) -> bool:
    try:
        f()
    except (ValueError, TypeError):
        return True
    return False


def clip_optax(rows: Any, clip: float) -> Any:
    return optax.per_example_global_norm_clip([rows], clip)[0][0]


def clip_jax_privacy(rows: Any, clip: float, **options: Any) -> Any:
    sums = jax_privacy.clipping.clipped_fun(lambda x: x, l2_clip_norm=clip, keep_batch_dim=False, **options)
    return sums(rows)


CLIP: dict[str, Callable[[Any, float], Any]] = {
    "optax": clip_optax,
    "jax-privacy": clip_jax_privacy,
    "efsgd_jax": lambda rows, clip: clip_and_sum(rows, clip).clipped_sum,
}


def length(x: Any) -> float:
    return float(np.linalg.norm(np.float64(x)))


def tail() -> dict[str, Any]:
    """Largest possible noise, in standard deviations."""
    largest = float(np.max(np.abs(float_normals())))
    return {"optax": largest, "jax-privacy": largest, "efsgd_jax": LARGEST * 266305 / noise.NOISE_WIDTH}


def low_bits() -> dict[str, Any]:
    """Share of noisy outputs of 0 that are no multiples of 2^-25 although below 1/4: impossible for outputs of 1."""
    shares = {}
    n, sigma = 1_000_000, 0.5
    privatizer = noise_addition.gaussian_privatizer(stddev=sigma, prng_key=jax.random.key(0))
    tx = aggregate(n**0.5, sigma / n**0.5, jax.random.key(0))
    draw = {
        "optax": lambda x: tx.update([jnp.full((1, n), x)], tx.init(None))[0][0],
        "jax-privacy": lambda x: privatizer.update(jnp.full(n, x), privatizer.init(jnp.zeros(n)))[0],
    }
    for name, f in draw.items():
        zero, one = (np.float64(f(x)) for x in (0.0, 1.0))
        fine = [float(np.mean((np.abs(v) < 0.25) & (v * 2**25 != np.round(v * 2**25)))) for v in (zero, one)]
        shares[name] = {"of 0": fine[0], "of 1": fine[1]}
    # Ours are functions of a whole number, of which both give the same: see arithmetic_noise.py.
    return {**shares, "efsgd_jax": {"of 0": "no such outputs", "of 1": "no such outputs"}}


def sums_that_move() -> dict[str, Any]:
    """How far one row moves a clipped sum, over the clip norm: 8,296 rows, whose sum passes 2^12 in small steps."""
    step = np.float32(2.0**-12 * 1.004)
    one = np.concatenate([np.ones((4096, 4)), np.full((4200, 4), step)]).astype(np.float32)
    blank = one.copy()
    blank[0] = 0.0
    clip = {**CLIP, "jax-privacy, microbatches": lambda r, c: clip_jax_privacy(r, c, microbatch_size=1)}
    return {name: (length(f(jnp.asarray(one), 2.0) - f(jnp.asarray(blank), 2.0))) / 2.0 for name, f in clip.items()}


def clipped_rows_are_longer() -> dict[str, Any]:
    """Of 2,000 random float32 rows clipped to 1, the share that is longer than 1."""
    rows = 3 * jax.random.normal(jax.random.key(0), (2000, 1, 300))
    return {
        name: float(np.mean([length(jax.jit(f, static_argnums=1)(r, 1.0)) > 1 for r in rows]))
        for name, f in CLIP.items()
    }


def half_precision() -> dict[str, Any]:
    """Length of a float16 gradient of 10^6 numbers of 1e-4, clipped to 0.01: its squares are below float16."""
    rows = jnp.full((1, 1_000_000), 1e-4, jnp.float16)
    return {name: length(f(rows, 0.01)) / 0.01 for name, f in CLIP.items()}


def bfloat16_norms() -> dict[str, Any]:
    """The greatest length of a random bfloat16 gradient clipped to 1, of 200."""
    rows = jax.random.normal(jax.random.key(0), (200, 1, 3000)).astype(jnp.bfloat16)
    return {name: max(length(jax.jit(f, static_argnums=1)(r, 1.0)) for r in rows) for name, f in CLIP.items()}


def not_a_number() -> dict[str, Any]:
    """Whether one NaN among the gradients makes the sum NaN, which says that the example was there."""
    rows = jnp.ones((4, 3)).at[1, 2].set(jnp.nan)
    return {name: bool(np.isnan(f(rows, 1.0)).any()) for name, f in CLIP.items()}


def keys_under_vmap() -> dict[str, Any]:
    """Whether the members of an ensemble have the same noise, so that their difference has none."""
    grads, params = ({k: jnp.zeros((3, *n, *p.shape)) for k, p in PARAMS.items()} for n in ((1,), ()))
    result = {}
    for name, tx in {"optax": aggregate(1.0, 1.0, fresh_key()), "efsgd_jax": ours()}.items():
        updates, _ = jax.vmap(tx.update)(grads, jax.vmap(tx.init)(params), params)
        result[name] = bool(np.array_equal(updates["a"][0], updates["a"][1]))
    tx = noise_addition.gaussian_privatizer(stddev=1.0, prng_key=fresh_key())
    updates, _ = jax.vmap(lambda p: tx.update(p, tx.init(p)))(params)
    result["jax-privacy"] = bool(np.array_equal(updates["a"][0], updates["a"][1]))
    return result


def a_state_used_twice() -> dict[str, Any]:
    """Whether two updates of one state silently have the same noise."""
    grads = {k: jnp.zeros((1, *p.shape)) for k, p in PARAMS.items()}
    theirs, private = (
        aggregate(1.0, 1.0, fresh_key()),
        noise_addition.gaussian_privatizer(stddev=1.0, prng_key=fresh_key()),
    )
    tx = ours()
    state = tx.init(PARAMS)
    tx.update(grads, state, PARAMS)

    def twice(tx: Any, grads: Any) -> bool:
        state = tx.init(PARAMS)
        return bool(np.array_equal(*(tx.update(grads, state)[0]["a"] for _ in range(2))))

    return {
        "optax": twice(theirs, grads), "jax-privacy": twice(private, PARAMS),
        "efsgd_jax": not refused(lambda: tx.update(grads, state, PARAMS)),
    }  # fmt: skip


def masked() -> dict[str, Any]:
    """Whether ``optax.masked`` lets leaves pass without clipping and noise."""
    grads = {k: 100 * jnp.ones((1, *p.shape)) for k, p in PARAMS.items()}
    mask = {"a": True, "b": False}
    result = {}
    private = noise_addition.gaussian_privatizer(stddev=1.0, prng_key=fresh_key())
    for name, inner, given in (
        ("optax", aggregate(1.0, 1.0, fresh_key()), grads),
        ("jax-privacy", private, jax.tree.map(lambda g: g[0], grads)),
    ):
        tx = optax.masked(inner, mask)
        result[name] = bool(np.all(tx.update(given, tx.init(PARAMS))[0]["b"] == 100))
    tx = optax.masked(ours(), mask)
    result["efsgd_jax"] = not refused(lambda: tx.update(grads, tx.init(PARAMS), PARAMS))
    return result


def keys_that_can_be_guessed() -> dict[str, Any]:
    """Whether the noise of a transform without a key, or with a whole number as key, can be guessed."""

    def draw() -> Any:
        tx = aggregate(1.0, 1.0)
        return tx.update([jnp.zeros((1, 5))], tx.init(None))[0][0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = bool(np.array_equal(draw(), draw()))
    return {
        "optax": f"without a key it is key(0): {same}",
        "jax-privacy": "without a key it is one of 2^31, of numpy's global generator",
        "efsgd_jax": not refused(lambda: error_feedback_aggregate(1.0, 1.0, 7, expected_batch_size=1)),
    }


def the_batchs_size() -> dict[str, Any]:
    """Whether the release is divided by the number of rows that came, which Poisson sampling keeps secret."""
    rows = [jnp.ones((n, 1)) / n for n in (4, 8)]
    means = [
        aggregate(100.0, 0.0, fresh_key()).update([r], aggregate(1.0, 0.0, fresh_key()).init(None))[0][0] for r in rows
    ]
    mine = [ours(0.0).update(r, ours(0.0).init(jnp.zeros(1)))[0] for r in rows]
    return {"optax": not np.allclose(*means), "jax-privacy": False, "efsgd_jax": not np.allclose(*mine)}


DEMONSTRATIONS = (
    tail, low_bits, sums_that_move, clipped_rows_are_longer, half_precision, bfloat16_norms, not_a_number,
    keys_under_vmap, a_state_used_twice, masked, keys_that_can_be_guessed, the_batchs_size,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opacus", help="the Python of an environment with Opacus")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    found = {f.__name__: f() for f in DEMONSTRATIONS}
    record: dict[str, Any] = {**provenance(), "faults": found}
    if args.opacus:
        script = Path(__file__).with_name("arithmetic_opacus.py")
        theirs = json.loads(subprocess.run([args.opacus, script], check=True, capture_output=True, text=True).stdout)
        record["opacus"] = theirs.pop("version")
        for name, value in theirs.items():
            found[name]["Opacus"] = value
    for f in DEMONSTRATIONS:
        print(f"{f.__name__}: {(f.__doc__ or '').splitlines()[0]}")
        print("".join(f"    {name:28s}{value}\n" for name, value in found[f.__name__].items()))
    write_record(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
