"""Random losses from the layers that ghost clipping knows, alone, composed, shared and reparameterised."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.models.convolution import convolve
from efsgd_jax.models.layers import Conv, NoiseInjection, PixelNorm, UpsamplingConv

SIDE, CHANNELS, CLASSES = 6, 2, 3
MAPS = (
    "conv", "strided", "dilated", "grouped", "depthwise", "transposed", "ours", "ours_strided", "upsampled", "convolve",
    "group_norm", "layer_norm", "pixel_norm", "noise", "spectral_conv", "residual", "shared_conv", "scaled", "conv1d",
    "remat", "feature_norm", "weight_normed",
)  # fmt: skip
VECTORS = ("dense", "shared_dense", "spectral_dense", "attention", "recurrent", "low_rank", "tied", "gated")
HEADS = ("projection", "sequence", "prototypes")


class RandomModel(nn.Module):
    """Layers by name, with sizes from ``sizes``; called with one image ``[1, S, S, C]`` and its label ``[1]``."""

    maps: tuple[str, ...]
    vectors: tuple[str, ...]
    head: str
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array) -> jax.Array:
        sizes = iter(self.sizes)
        for name in self.maps:
            x = nn.silu(self.map_layer(name, x, 2 * next(sizes)))
        h = x.reshape(x.shape[0], -1)
        for name in self.vectors:
            h = jnp.tanh(self.vector_layer(name, h, next(sizes) + 1))
        return self.head_layer(self.head, h, label)

    def map_layer(self, name: str, x: jax.Array, n: int) -> jax.Array:
        c = x.shape[-1]
        match name:
            case "conv":
                return nn.Conv(n, (3, 2), padding=((1, 0), (2, 1)))(x)
            case "strided":
                return nn.Conv(n, (3, 3), strides=(2, 1))(x)
            case "dilated":
                return nn.Conv(n, (2, 3), kernel_dilation=(2, 1), padding="SAME")(x)
            case "grouped":
                return nn.Conv(n, (3, 3), feature_group_count=2 if c % 2 == 0 else 1)(x)
            case "depthwise":
                return nn.Conv(2 * c, (3, 3), feature_group_count=c)(x)[..., :6]
            case "transposed":
                return nn.ConvTranspose(n, (3, 3), strides=(2, 1), padding="SAME")(x)[:, :7, :7]
            case "ours":
                return Conv(n)(x)
            case "ours_strided":
                return Conv(n, 5, 2)(x)
            case "upsampled":
                return UpsamplingConv(n)(x)[:, :7, :7]
            case "convolve":
                kernel = self.param("kernel", nn.initializers.he_normal(), (2, 2, c, n))
                return convolve(x, kernel**3, 1, ((1, 1), (0, 1)))
            case "group_norm":
                return nn.GroupNorm(num_groups=1)(x)
            case "layer_norm":
                return nn.LayerNorm()(x)
            case "pixel_norm":
                return PixelNorm()(x) * self.param("gain", nn.initializers.ones_init(), (c,))
            case "noise":
                return NoiseInjection(0.3)(x)
            case "spectral_conv":
                layer = nn.SpectralNorm(nn.Conv(n, (3, 3)))
                return layer(x, update_stats=False)
            case "residual":
                return x + nn.Conv(c, (3, 3))(nn.silu(nn.GroupNorm(num_groups=1)(x)))
            case "shared_conv":
                layer = nn.Conv(c, (3, 3))
                return layer(nn.silu(layer(x)))
            case "scaled":
                return x * jnp.exp(self.param("log_scale", nn.initializers.normal(0.3), ())) - 0.1
            case "conv1d":
                return nn.Conv(n, (3,))(x.reshape(x.shape[0], -1, c)).reshape(*x.shape[:-1], n)
            case "remat":
                return nn.remat(nn.Conv)(n, (3, 3))(x)
            case "feature_norm":
                return nn.WeightNorm(nn.Conv(n, (1, 1)))(x)
            case "weight_normed":
                kernel = self.param("v", nn.initializers.normal(1.0), (c, n))
                return x @ (
                    kernel / jnp.linalg.norm(kernel, axis=0) * self.param("g", nn.initializers.ones_init(), (n,))
                )
        raise AssertionError(name)

    def vector_layer(self, name: str, h: jax.Array, n: int) -> jax.Array:
        d = h.shape[-1]
        match name:
            case "dense":
                return nn.Dense(n)(h)
            case "shared_dense":
                layer = nn.Dense(d)
                return nn.Dense(n)(layer(jnp.tanh(layer(h))))
            case "spectral_dense":
                return nn.SpectralNorm(nn.Dense(n))(h, update_stats=False)
            case "attention":
                tokens = nn.Dense(8)(h[:, :4, None] * jnp.ones((1, 1, 2)))
                return nn.MultiHeadDotProductAttention(num_heads=2)(tokens, tokens).reshape(h.shape[0], -1)
            case "recurrent":
                words = h[:, : d // 2 * 2][:, :6].reshape(h.shape[0], -1, 2)
                return nn.RNN(nn.GRUCell(features=n))(words, initial_carry=jnp.zeros((h.shape[0], n), h.dtype))[:, -1]
            case "low_rank":
                a = self.param("a", nn.initializers.lecun_normal(), (d, 2))
                return h @ (a @ self.param("b", nn.initializers.lecun_normal(), (2, n)))
            case "tied":
                kernel = self.param("tied", nn.initializers.lecun_normal(), (d, n))
                return jnp.tanh(jnp.tanh(h @ kernel) @ kernel.T) @ kernel
            case "gated":
                return nn.Dense(n)(h) * jax.nn.sigmoid(nn.Dense(n, use_bias=False)(h))
        raise AssertionError(name)

    def head_layer(self, name: str, h: jax.Array, label: jax.Array) -> jax.Array:
        match name:
            case "projection":
                return nn.Dense(CLASSES)(h) + jnp.sum(nn.Embed(CLASSES, h.shape[-1])(label) * h, axis=-1, keepdims=True)
            case "sequence":
                words = nn.Embed(5, 4)(jnp.stack([label, label + 1, label], axis=-1))  # one row twice
                return nn.Dense(CLASSES)(h) + nn.Dense(CLASSES)(jnp.tanh(words)).sum(axis=1)
            case "prototypes":
                table = self.param("prototypes", nn.initializers.normal(1.0), (CLASSES, h.shape[-1]))
                return -jnp.sum(jnp.square(h[:, None] - table), axis=-1)
        raise AssertionError(name)


def random_loss(seed: int) -> tuple[Callable[..., Any], Callable[[jax.Array], Any], str]:
    """A loss ``(params, (image, label), key) -> (scalar, aux)``, its ``init(key)``, and what it is made of."""
    rng = np.random.default_rng(seed)
    maps = tuple(rng.choice(MAPS, size=rng.integers(1, 4)).tolist())
    maps = tuple(dict.fromkeys(maps))  # a name has one set of parameters where a layer makes them itself
    vectors = tuple(dict.fromkeys(rng.choice(VECTORS, size=rng.integers(0, 3)).tolist()))
    head = str(rng.choice(HEADS))
    model = RandomModel(maps, vectors, head, tuple(rng.integers(1, 4, size=8).tolist()))
    second_order, decay = rng.random() < 0.15, rng.random() < 0.15

    def init(key: jax.Array) -> Any:
        x, y = jnp.zeros((1, SIDE, SIDE, CHANNELS)), jnp.zeros(1, int)  # here, for the precision of the time
        variables = model.init({"params": key, "noise": key}, x, y)
        # Biases and gains away from their special values.
        noise = jax.tree.map(lambda p: 0.1 * jax.random.normal(key, p.shape, p.dtype), variables["params"])
        return {**variables, "params": jax.tree.map(jnp.add, variables["params"], noise)}

    def loss_with(constants: Any) -> Callable[..., Any]:
        def loss(params: Any, example: Any, key: jax.Array) -> tuple[jax.Array, Any]:
            image, label = example

            def logits(image: jax.Array) -> jax.Array:
                return model.apply({**constants, "params": params}, image[None], label[None], rngs={"noise": key})

            value = optax.softmax_cross_entropy_with_integer_labels(logits(image), label[None]).sum()
            if second_order:  # a gradient penalty
                value += jnp.sum(jnp.square(jax.grad(lambda i: jnp.sum(jnp.sin(logits(i))))(image)))
            if decay:
                value += 0.01 * optax.tree.norm(params, squared=True)
            return value, {"logits": logits(image)[0]}

        return loss

    extras = ["second order"] * second_order + ["decay"] * decay
    return loss_with, init, " ".join([*maps, *vectors, head, *extras])
