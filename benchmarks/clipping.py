"""Per-example clipping of `efsgd_gan`'s discriminator against the plain gradient, jax-privacy and Opacus: ms per call.

    pip install -e '.[bench]'
    python benchmarks/clipping.py --out=benchmarks/results/clipping.json

All have the same network, weights and batch; rounds are interleaved. That the clipped gradients are equal is
checked first. *Plain* is the gradient of the batch's sum of losses, by XLA's convolution, by ours, and by ours in
microbatches, which on a CPU is quicker for cache's sake. PyTorch is timed on one thread and on as many as there are
cores, and the faster counts. The machine must be idle. Peers that are not installed are left out.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from provenance import provenance
from timing import cores, fastest, in_turn, ratios, spread, write_record

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models import Discriminator
from efsgd_jax.models.layers import Conv
from efsgd_jax.privacy import clipped_grad
from efsgd_jax.privacy.rounding import margin
from efsgd_jax.training.compilation import compiler_options

SPEC = ImageSpec(28, 1, 10)
FEATURES = 64
L2_NORM_CLIP = 0.5
TOLERANCE = 1e-5


class Problem:
    """A discriminator, its weights, a batch, and what is compared on them."""

    def __init__(self, width: int, max_width: int, batch_size: int) -> None:
        self.width, self.max_width = width, max_width
        self.module = Discriminator(SPEC, width, max_width, FEATURES)
        rng = np.random.default_rng(0)
        self.images = jnp.asarray(rng.standard_normal((batch_size, *SPEC.shape)), jnp.float32)
        self.labels = jnp.asarray(rng.integers(0, SPEC.num_classes, batch_size), jnp.int32)
        self.keys = jax.random.split(jax.random.key(0), batch_size)
        self.params = jax.jit(self.module.init)(jax.random.key(1), self.images[:1], self.labels[:1])
        # Ours are clipped with a margin for rounding; for equal sums the peers have to clip to the same norm.
        self.l2_norm_clip_of_peers = L2_NORM_CLIP / (1 + margin(self.params, batch_size))

    def sum_of_losses(self, params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        judgement = self.module.apply(params, images, labels)
        classes = optax.softmax_cross_entropy_with_integer_labels(judgement.class_logits, labels)
        return jnp.sum(jax.nn.softplus(-judgement.realness) + classes)

    def loss(self, params: Any, example: Any, key: jax.Array) -> tuple[jax.Array, None]:
        image, label = example
        return self.sum_of_losses(params, image[None], label[None]), None

    def plain(self, params: Any, images: jax.Array, labels: jax.Array) -> Any:
        return jax.grad(self.sum_of_losses)(params, images, labels)

    def plain_by_xla(self, params: Any, images: jax.Array, labels: jax.Array) -> Any:
        with nn.intercept_methods(_by_xla):
            return jax.grad(self.sum_of_losses)(params, images, labels)

    def plain_in_microbatches(self, params: Any, images: jax.Array, labels: jax.Array, size: int) -> Any:
        def add(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.grad(self.sum_of_losses)(params, *part)), None

        parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), (images, labels))
        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]

    def clipped(self, method: Any, size: int | None) -> Callable[..., Any]:
        f = clipped_grad(self.loss, L2_NORM_CLIP, method=method, microbatch_size=size)
        return lambda params, images, labels: f(params, (images, labels), self.keys).clipped_sum


def _by_xla(following: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """``jax.lax.conv_general_dilated`` in the place of our convolution."""
    layer = context.module
    if not isinstance(layer, Conv) or context.method_name != "__call__":
        return following(*args, **kwargs)
    kernel, bias, pad = (
        layer.get_variable("params", "kernel"),
        layer.get_variable("params", "bias"),
        layer.kernel_size // 2,
    )
    y = jax.lax.conv_general_dilated(
        args[0], kernel, (layer.stride,) * 2, [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + bias


def ours(problem: Problem, microbatch_size: int) -> dict[str, Callable[[], Any]]:
    functions = {
        "plain, XLA's convolution": problem.plain_by_xla,
        "plain": problem.plain,
        "plain in microbatches": functools.partial(problem.plain_in_microbatches, size=microbatch_size),
        "ghost": problem.clipped("ghost", None),
        "ghost in microbatches": problem.clipped("ghost", microbatch_size),
        "vmap": problem.clipped("vmap", None),
        "vmap in microbatches": problem.clipped("vmap", microbatch_size),
    }
    arguments = problem.params, problem.images, problem.labels
    return {name: _ready(jax.jit(f, compiler_options=compiler_options()), *arguments) for name, f in functions.items()}


def of_jax_privacy(problem: Problem, microbatch_size: int) -> dict[str, Callable[[], Any]]:
    try:
        from jax_privacy import clipping
    except ImportError:
        return {}
    arguments = problem.params, problem.images, problem.labels
    run = {}
    for name, size in (("jax-privacy", None), ("jax-privacy in microbatches", microbatch_size)):
        f = clipping.clipped_grad(
            problem.sum_of_losses,
            l2_clip_norm=problem.l2_norm_clip_of_peers,
            batch_argnums=(1, 2),
            microbatch_size=size,
        )
        # With the faster one of XLA's two sets of routines for a CPU.
        for options in ({}, compiler_options()):
            run[name + (", our compiler options" if options else "")] = _ready(
                jax.jit(f, compiler_options=options), *arguments
            )
    return run


def of_torch(problem: Problem, convert: bool = True) -> dict[str, Callable[[], Any]]:
    try:
        import torch
        from torch_clipping import Ghost, Hooks, Plain, TorchDiscriminator
    except ImportError:
        return {}
    # On the accelerator that JAX uses, if PyTorch can, and there without copies of the result to the host unless
    # ``convert``. Both round the factors of float32 products there.
    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    x = torch.tensor(np.asarray(problem.images)).permute(0, 3, 1, 2).contiguous().to(device)
    y = torch.tensor(np.asarray(problem.labels)).long().to(device)
    run = {}
    for name, make in (
        ("PyTorch plain", Plain),
        ("Opacus hooks", functools.partial(Hooks, l2_norm_clip=problem.l2_norm_clip_of_peers)),
        ("Opacus ghost", functools.partial(Ghost, l2_norm_clip=problem.l2_norm_clip_of_peers)),
    ):
        model = TorchDiscriminator(SPEC, problem.width, problem.max_width, FEATURES, row_major=make is not Plain)
        model.load(problem.params).to(device)
        gradient = make(model)

        def call(threads: int, gradient: Any = gradient, model: Any = model) -> Any:
            torch.set_num_threads(threads)
            found = gradient(x, y)
            if device == "cuda" and not convert:
                torch.cuda.synchronize()
                return None
            return model.as_flax(found)

        for threads in sorted({1, cores()} if device == "cpu" else {cores()}):
            run[f"{name}, {threads} thread{'s' * (threads > 1)}"] = functools.partial(call, threads)
    return run


def _ready(f: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(f(*arguments))


def check_equal(run: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Relative errors of all clipped sums, and of all plain ones, against the first; at most 1e-5."""
    plain = [name for name in run if "plain" in name]
    errors = {}
    for names in (plain, [name for name in run if name not in plain]):
        want = run[names[0]]()
        for name in names[1:]:
            errors[name] = float(optax.tree.norm(optax.tree.sub(run[name](), want)) / optax.tree.norm(want))
    worst = max(errors.values())
    print(f"largest relative difference between gradients: {worst:.1e}")
    assert worst <= TOLERANCE, errors
    return errors


def families(times: dict[str, list[float]]) -> dict[str, str]:
    """The fastest member of each family of rows."""
    kinds = ("plain", "ghost", "vmap", "jax-privacy", "PyTorch plain", "Opacus hooks", "Opacus ghost")
    members = {kind: [name for name in times if name.startswith(kind)] for kind in kinds}
    return {kind: fastest(times, names) for kind, names in members.items() if names}


def to_table(times: dict[str, list[float]]) -> str:
    """Each family's fastest row; ratios of times of the same round."""
    best = families(times)
    whole = fastest(times, ["plain, XLA's convolution", "plain"])
    lines = ["| | ms | of plain | of plain in its fastest form | times slower than ghost |", "|---|---|---|---|---|"]
    for kind, name in {"plain, whole batch": whole, **best}.items():
        against = [times[whole], times[best["plain"]]]
        cells = [spread(ratios(times[name], other)) for other in against]
        cells.append(spread(ratios(times[name], times[best["ghost"]])))
        lines.append(
            f"| {name if kind in name else f'{kind}: {name}'} | {spread(times[name], 1)} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="128,512", help="separated by commas")
    parser.add_argument("--widths", default="8:32", help="width:max_width of discriminators, separated by commas")
    parser.add_argument("--microbatch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3, help="calls in one turn")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    record: dict[str, Any] = {**provenance(), "sizes": {k: v for k, v in vars(args).items() if k != "out"}, "runs": []}
    for widths in args.widths.split(","):
        for batch_size in map(int, args.batches.split(",")):
            problem = Problem(*map(int, widths.split(":")), batch_size)
            count = sum(x.size for x in jax.tree.leaves(problem.params))
            print(f"\nDiscriminator of widths {widths}, {count} parameters, B = {batch_size}")
            run = {**ours(problem, args.microbatch_size), **of_jax_privacy(problem, args.microbatch_size)}
            run |= of_torch(problem)
            errors = check_equal(run)
            times = in_turn(run, args.rounds, args.repeats)
            print(to_table(times))
            record["runs"].append(
                {"widths": widths, "batch_size": batch_size, "parameters": count, "relative_error": errors}
                | {"ms": times}
            )
            write_record(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
