"""The downstream classifiers of Dockhorn et al., Differentially Private Diffusion Models, arXiv 2210.09929.

After https://github.com/nv-tlabs/DPDM, train_downstream_classifiers.py: the same networks, 50 epochs of Adam with
learning rate 3e-4, batches of 128, pixels in [-1, 1], no augmentation. A tenth of the images is held out. The epoch
with the best accuracy on them is kept; if several are equally good, the first of these.

The stated times are for a step, and for training on 60,000 images of 28x28, on two CPU cores; the latter is computed
from the former.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.evaluation.metrics.epochs import Predict, TrainingOptions, train_by_epochs
from efsgd_jax.models.layers import Conv

# The smallest side of an image for which the third convolution of ``Cnn`` has an output of at least one pixel.
SMALLEST = 18
# PyTorch's default initialisation of the weights of dense and convolutional layers: uniform between plus and minus
# 1 / sqrt(number of inputs of a unit).
KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _adam(batches: int) -> optax.GradientTransformation:
    del batches
    return optax.adam(3e-4)


OPTIONS = TrainingOptions(epochs=50, batch_size=128, optimizer=_adam, held_out=0.1)


class Dense(nn.Module):
    """Fully connected hidden layers of ``widths`` with ReLU; with no hidden layer it is logistic regression."""

    num_classes: int
    widths: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, kernel_init=KERNEL)(x))
        return nn.Dense(self.num_classes, kernel_init=KERNEL)(x)


class Cnn(nn.Module):
    """Three 3x3 convolutions without padding, with 32, 64 and 128 channels, and a hidden layer of 128 units.

    The first two convolutions are followed by 2x2 max pooling; dropout of 0.5 follows them and the hidden layer. An
    image with a side below ``SMALLEST`` is first enlarged here: each pixel is repeated, along both axes, as often as is
    needed for its shorter side to have at least ``SMALLEST`` pixels.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        factor = -(-SMALLEST // min(x.shape[1:3]))  # rounded up; 1 for images that are large enough
        x = jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)
        for channels in (32, 64):
            x = nn.relu(_pooled(_convolved(x, channels)))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.relu(_convolved(x, 128))
        x = nn.relu(nn.Dense(128, kernel_init=KERNEL)(x.reshape(len(x), -1)))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=KERNEL)(x)


def _convolved(x: jax.Array, channels: int) -> jax.Array:
    """A 3x3 convolution without padding: ``Conv`` pads with zeros, and the outputs that depend on them are cut off."""
    return Conv(channels, kernel_init=KERNEL)(x)[:, 1:-1, 1:-1]


def _pooled(x: jax.Array) -> jax.Array:
    """2x2 max pooling, without an odd last row or column; by reshaping, since the gradient of that is fast on CPUs."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def dpdm_logistic_regression(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """DPDM's logistic regression: 0.2 ms for a step, 5 seconds for training."""
    return train_by_epochs(Dense(num_classes), images, labels, OPTIONS, seed).predict


def dpdm_mlp(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """DPDM's MLP, with one hidden layer of 100 units: 0.5 ms for a step, 11 seconds for training."""
    return train_by_epochs(Dense(num_classes, (100,)), images, labels, OPTIONS, seed).predict


def dpdm_cnn(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """DPDM's CNN, with 241,546 parameters for 28x28x1 and 10 classes: 45 ms for a step, 16 minutes for training.

    ``Cnn`` enlarges images smaller than 18x18.
    """
    return train_by_epochs(Cnn(num_classes), images, labels, OPTIONS, seed).predict
