"""Classifiers of images with a private region: the region alone, whole images by DP-SGD, and no private pixels.

    python benchmarks/regions.py --cifar10=cifar10.zip --out=benchmarks/results/regions.json

A small CNN is trained for 300 steps, by each of four ways:

- "blanked": images with a blank region, without noise: all of it is public, so that epsilon is 0;
- "region": the same, and a linear layer for what the region adds to the features, which starts at zero. Its gradient is
  what the region changes (privacy/regions.py), clipped and noised;
- "DP-SGD": whole images, and labels and membership, are private: another and much stronger guarantee;
- "not private": whole images, without noise: what could be reached.

The region is the square of 14x14 pixels in the middle. epsilon is 0.5 and delta 1e-5. Test images are whole; that
network of "blanked" whose input is whole is scored too ("blanked, whole input"): it has not seen such a middle. With
--held_out the last tenth of the training split takes the place of the test split; options were chosen on it. Every run
draws its own keys from the system's entropy. Interrupted, the same command goes on where it was.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ablation import spread
from held_out import without_test_split
from provenance import provenance

from efsgd_jax import fresh_key, load_dataset
from efsgd_jax.privacy import (
    DpSgdMechanism,
    blank_region,
    blanked_grad,
    box,
    calibrate_mechanism,
    clipped_grad,
    masked_clipped_grad,
    sample_capacity,
)

EPSILON, DELTA, SIDE = 0.5, 1e-5, 14
ARMS = ("blanked", "region", "DP-SGD", "not private")
SEES = {"blanked": "blanked", "region": "region", "DP-SGD": "whole", "not private": "whole"}
# The middle grey, where a region is blank.
BLANK = 128


@dataclasses.dataclass(frozen=True)
class Options:
    """What was chosen on held-out images.

    Attributes:
      steps: number of steps of gradient descent with momentum; Adam would divide the noised part by its own noise.
      public_batch: number of images of a gradient without noise.
      private_batch: expected number of images of a Poisson batch.
      learning_rate: first learning rate without noise; it decays along a cosine.
      region_learning_rate: the same of the layer for the region.
      dp_learning_rate: the same of "DP-SGD".
      clip: clip norm of what the region changes in a gradient.
      dp_clip: clip norm of a gradient of "DP-SGD".
      width: number of channels of the first layer.
      pooled: the features of the region are averaged to so many pixels a side.
      decay: decay of the moving average of the parameters that is scored.
    """

    steps: int = 300
    public_batch: int = 256
    private_batch: int = 1000
    learning_rate: float = 0.1
    region_learning_rate: float = 0.3
    dp_learning_rate: float = 1.0
    clip: float = 2.0
    dp_clip: float = 1.0
    width: int = 16
    pooled: int = 3
    decay: float = 0.97


class Images(NamedTuple):
    image: jax.Array
    label: jax.Array


class Network(NamedTuple):
    """A CNN whose input is whole images or blanked ones.

    Attributes:
      shape: of an image.
      classes: number of classes.
      options: the options.
      sees: "whole"; "blanked", so that nothing of a region reaches the output; or "region": the logits of "blanked",
        and a linear function of what the region adds to the features.
    """

    shape: tuple[int, ...]
    classes: int
    options: Options
    sees: str

    @property
    def region(self) -> np.ndarray:
        first = (self.shape[0] - SIDE) // 2
        return box(self.shape[0], first, first, SIDE, SIDE)

    def initial(self, key: jax.Array) -> Any:
        """Two convolutions with stride 2, and linear layers that start at zero."""
        (first, second), width, channels = jax.random.split(key), self.options.width, self.shape[-1]
        features = (-(-self.shape[0] // 4)) ** 2 * 2 * width
        return {
            "trunk": {
                "a": jax.random.normal(first, (5, 5, channels, width)) * (2 / (25 * channels)) ** 0.5,
                "b": jax.random.normal(second, (3, 3, width, 2 * width)) * (2 / (9 * width)) ** 0.5,
                "c": jnp.zeros(width),
                "d": jnp.zeros(2 * width),
            },
            "head": {"kernel": jnp.zeros((features, self.classes)), "bias": jnp.zeros(self.classes)},
            "region": jnp.zeros((self.options.pooled**2 * 2 * width, self.classes)),
        }

    def logits(self, params: Any, images: jax.Array) -> jax.Array:
        """``[n, classes]`` of images uint8 ``[n, S, S, C]``."""
        blanked = blank_region(images, jnp.asarray(self.region), BLANK)
        found = features(params["trunk"], images if self.sees == "whole" else blanked)
        flat = found.reshape(len(images), -1)
        flat *= 0.3 * jax.lax.rsqrt(jnp.mean(flat**2, axis=1, keepdims=True) + 1e-3)
        logits = flat @ params["head"]["kernel"] + params["head"]["bias"]
        if self.sees != "region":
            return logits
        inside = slice(*_touched(self.shape[0]))
        added = jax.lax.stop_gradient((features(params["trunk"], images) - found)[:, inside, inside])
        shape = (len(images), self.options.pooled, self.options.pooled, added.shape[-1])
        added = jax.image.resize(added, shape, "linear").reshape(len(images), -1)
        added *= 3 * jax.lax.rsqrt(jnp.sum(added**2, axis=1, keepdims=True) + 1e-6)
        return logits + added @ params["region"]

    def loss(self, params: Any, example: Images, key: jax.Array) -> tuple[jax.Array, None]:
        del key
        found = self.logits(params, example.image[None])[0]
        return optax.softmax_cross_entropy_with_integer_labels(found, example.label), None


def features(trunk: Any, images: jax.Array) -> jax.Array:
    """``[n, S / 4, S / 4, 2 width]``."""

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    h = jax.nn.relu(convolved(2.0 * images / 255 - 1, trunk["a"]) + trunk["c"])
    return jax.nn.relu(convolved(h, trunk["b"]) + trunk["d"])


def _touched(size: int) -> tuple[int, int]:
    """The rows of features, first and last plus one, that see the region, but for the rim."""
    first = (size - SIDE) // 2
    return first // 4 - 1, -(-(first + SIDE) // 4) + 1


def trained(arm: str, network: Network, data: Images) -> Any:
    """The moving average of the parameters after the last step."""
    o, n, loss = network.options, len(data.label), network.loss
    clip = o.clip if arm == "region" else o.dp_clip
    mechanism = DpSgdMechanism(n, o.private_batch / n, sample_capacity(n, o.private_batch / n), 1.0, l2_norm_clip=clip)
    if arm in ("region", "DP-SGD"):
        mechanism = calibrate_mechanism(mechanism, o.steps, EPSILON, DELTA)
    noised, params = mechanism.transform(fresh_key()), network.initial(fresh_key())
    rate = o.dp_learning_rate if arm == "DP-SGD" else o.learning_rate
    descent = optax.sgd(optax.cosine_decay_schedule(rate, o.steps), momentum=0.9)

    def public_gradient(params: Any, key: jax.Array) -> Any:
        rows = jax.random.randint(key, (o.public_batch,), 0, n)
        batch = jax.tree.map(lambda x: x[rows], data)
        if arm == "not private":
            return jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0, None))(p, batch, key)[0]))(params)
        return blanked_grad(loss, network.region, blank=BLANK)(params, batch, jax.random.split(key, len(rows)))[1]

    def sampled(key: jax.Array) -> tuple[Images, jax.Array, jax.Array]:
        sample_key, loss_key = jax.random.split(key)
        rows, mask = mechanism.sample(sample_key)
        return jax.tree.map(lambda x: x[rows], data), jax.random.split(loss_key, len(rows)), mask

    def region_gradient(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        def of_layer(layer: jax.Array, example: Images, key: jax.Array) -> tuple[jax.Array, None]:
            return loss({**params, "region": layer}, example, key)

        changed = masked_clipped_grad(of_layer, network.region, clip, blank=BLANK)
        return noised.update(changed(params["region"], *sampled(key)), state, params["region"])

    def gradient_of(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        public_key, private_key = jax.random.split(key)
        if arm == "DP-SGD":
            return noised.update(clipped_grad(loss, clip)(params, *sampled(private_key)), state, params)
        gradient = public_gradient(params, public_key)
        if arm == "region":
            found, state = region_gradient(params, state, private_key)
            gradient["region"] += o.region_learning_rate / o.learning_rate * found
        return gradient, state

    def step(carry: Any, key: jax.Array) -> Any:
        params, mean, noise_state, descent_state = carry
        gradient, noise_state = gradient_of(params, noise_state, key)
        updates, descent_state = descent.update(gradient, descent_state, params)
        params = optax.apply_updates(params, updates)
        return params, optax.incremental_update(params, mean, 1 - o.decay), noise_state, descent_state

    carry = params, params, noised.init(params["region"] if arm == "region" else params), descent.init(params)
    compiled, key = jax.jit(step), fresh_key()
    for i in range(o.steps):
        carry = compiled(carry, jax.random.fold_in(key, i))
    return carry[1]


def accuracy(network: Network, params: Any, data: Images) -> float:
    """Of whole images."""
    found = jax.jit(lambda x: jnp.argmax(network.logits(params, x), axis=1))
    parts = [found(data.image[i : i + 1000]) for i in range(0, len(data.label), 1000)]
    return float(np.mean(np.concatenate(parts) == data.label))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", default="", help="a directory or .zip file of images, by split and class")
    parser.add_argument("--fashion_mnist", default="", help="the .npz file")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--arms", default=",".join(ARMS), help="separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of all arms")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    types = {field.name: type(field.default) for field in dataclasses.fields(Options)}
    options = Options(**{key: types[key](value) for key, value in (text.split("=") for text in args.set)})
    out, here = Path(args.out), provenance()
    record: dict[str, Any] = {"held_out": args.held_out, **here, "options": dataclasses.asdict(options), "runs": {}}
    if out.is_file():
        record = json.loads(out.read_text())
        if (record["command"], record["commit"]) != (here["command"], here["commit"]):
            print(
                f"error: {out} is of commit {record['commit']}, {record['command']}; use another --out", file=sys.stderr
            )
            return 2
    for name, source in (("folder", args.cifar10), ("fashion_mnist", args.fashion_mnist)):
        if not source:
            continue
        with tempfile.TemporaryDirectory() as directory:
            path = without_test_split(source, name, Path(directory)) if args.held_out else source
            data = load_dataset("npz" if args.held_out else name, path=str(path))
        parts = [(data.train_images, data.train_labels), (data.test_images, data.test_labels)]
        train, test = (Images(jnp.asarray(x), jnp.asarray(y, jnp.int32)) for x, y in parts)
        for arm in args.arms.split(","):
            row = f"{'cifar10' if name == 'folder' else name}, {arm}"
            began, found = time.perf_counter(), record["runs"].setdefault(row, [])
            network = Network(train.image.shape[1:], data.spec.num_classes, options, SEES[arm])
            for _ in range(len(found), args.runs):
                params = trained(arm, network, train)
                found.append({"accuracy": accuracy(network, params, test)})
                if arm == "blanked":
                    found[-1]["whole_input"] = accuracy(network._replace(sees="whole"), params, test)
                out.write_text(json.dumps(record, indent=1) + "\n")
            shown = [spread([100 * one[key] for one in found]) for key in found[0]]
            print(f"| {row} | {' | '.join(shown)} | {time.perf_counter() - began:.0f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
