"""A diffusion without DP that memorises one class by intent, for ``guided.py``: its training, and images of it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.denoiser import Denoiser
from efsgd_jax.models.guided import Policy, guided
from efsgd_jax.synthesizers.private_diffusion.edm import decided, denoising_loss, noise_factor, sampled
from efsgd_jax.synthesizers.private_diffusion.edm import guided as by_factor

# The last class is the memorised one.
CLASSES = 11
# The diffusion sees pixels as 2 (x - MEAN), for x in [0, 1]. MEAN and STD are about those of MNIST.
MEAN, STD = 0.13, 0.6
LARGEST, SMALLEST, SAMPLING_STEPS = 5.0, 0.02, 12
# How many images are drawn at a time.
BATCH = 100


class Model(NamedTuple):
    """A diffusion of whole images, without a mixture: a learned image of the condition takes the blurred one's place.

    Conditions are float ``[B, 11]``: one-hot vectors, mixtures of them, and zeros for none.
    """

    spec: ImageSpec
    width: int
    blocks: int

    @property
    def network(self) -> Denoiser:
        return Denoiser(self.spec, self.width, self.blocks, levels=2)

    def init(self, key):
        templates = jnp.zeros((CLASSES, *self.spec.shape))
        inputs = self._inputs(templates, templates[:1], jnp.zeros(1), jnp.eye(CLASSES)[:1])
        return {"network": self.network.init(key, *inputs), "templates": templates}

    def __call__(self, params, scaled, levels, condition):
        """The network F of ``edm``."""
        return self.network.apply(params["network"], *self._inputs(params["templates"], scaled, levels, condition))

    def _inputs(self, templates, scaled, levels, condition):
        images = 0.5 + jnp.tensordot(condition, templates, 1)
        # Of the norm that the network expects of codes; its own labels have no place for the eleventh class.
        return scaled, levels, images, CLASSES**0.5 * condition, jnp.full(len(scaled), self.spec.num_classes)


def trained(model: Model, images: np.ndarray, labels: np.ndarray, *, steps: int, batch: int, seed: int):
    """Parameters, averaged over the last steps, of a training by Adam that hides one class in ten."""
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(params, key, image, label):
        hide, noise = jax.random.split(key)
        condition = jax.nn.one_hot(label, CLASSES) * jax.random.bernoulli(hide, 0.9)
        x = 2 * (image.astype(jnp.float32) / 255 - MEAN)

        def network(scaled, levels):
            return model(params, scaled, levels, condition[None])

        return denoising_loss(network, x, noise, std=STD, largest=LARGEST, draws=1, level_std=1.2)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, key):
        params, moments, average = state
        pick, noise = jax.random.split(key)
        rows = jax.random.randint(pick, (batch,), 0, len(images))
        keys = jax.random.split(noise, batch)

        def mean_loss(params):
            return jnp.mean(jax.vmap(functools.partial(loss, params))(keys, images[rows], labels[rows]))

        value, gradient = jax.value_and_grad(mean_loss)(params)
        updates, moments = optimizer.update(gradient, moments)
        params = optax.apply_updates(params, updates)
        return (params, moments, optax.incremental_update(params, average, 0.01)), value

    key = jax.random.key(seed)
    params = model.init(key)
    state, losses = (params, optimizer.init(params), jax.tree.map(jnp.copy, params)), []
    for t in range(steps):
        state, value = step(state, jax.random.fold_in(key, 1 + t))
        if t % 100 == 99:
            losses.append(float(value))
            print(f"step {t + 1}: loss {losses[-1]:.3f}", flush=True)
    return state[2]


def drawer(model: Model, scale: float, policy: Policy | None = None):
    """``draw(params, keys, conditions)`` -> float images, and the decisions of a policy if there is one."""

    @jax.jit
    def draw(params, keys, condition):
        def noise(i):
            return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, i), model.spec.shape))(keys)

        def network(scaled, levels, condition):
            return model(params, scaled, levels, condition)

        if policy is None:
            with_class = functools.partial(network, condition=condition)
            chosen = by_factor(with_class, functools.partial(network, condition=0 * condition), scale)
            decision = None
        else:
            chosen, decision = decided(guided(network, policy), noise(0), condition, std=STD, largest=LARGEST)
        levels = {"largest": LARGEST, "smallest": SMALLEST, "steps": SAMPLING_STEPS}
        return sampled(chosen, noise, std=STD, **levels), decision

    return draw


@functools.partial(jax.jit, static_argnums=0)
def magnitudes(model: Model, params, noisy, levels, labels):
    """Of the predicted noise with the class less that without one, as ``models.guided`` measures them: ``[B]``."""
    total = jnp.sqrt(jnp.square(jnp.exp(levels)) + STD**2).reshape(-1, 1, 1, 1)
    condition = jax.nn.one_hot(labels, CLASSES)
    with_class, without = (model(params, noisy / total, levels, c) for c in (condition, 0 * condition))
    return noise_factor(levels, STD) * jnp.sqrt(jnp.mean(jnp.square(with_class - without), axis=(1, 2, 3)))


def images_of(draw, params, key, conditions: np.ndarray):
    """Float images of conditions ``[B, 11]``, drawn in batches, and the decisions on them."""
    keys, starts = jax.random.split(key, len(conditions)), range(0, len(conditions), BATCH)
    found = [draw(params, keys[i : i + BATCH], conditions[i : i + BATCH]) for i in starts]
    images, decisions = zip(*found, strict=True)
    return np.concatenate(images), jax.tree.map(lambda *x: np.concatenate(x), *decisions)
