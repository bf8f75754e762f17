"""The downstream classifiers of Gong et al., DPImageBench, arXiv 2503.14681.

After https://github.com/2019ChenGong/DPImageBench, evaluation/evaluator.py, for data sets other than CIFAR: 50 epochs
of Adam with learning rate 0.01, multiplied by 0.2 after every 20 epochs, batches of 256, pixels in [-1, 1], no
augmentation, and a moving average of the weights with decay 0.9999. 5,000 of 60,000 synthetic images are held out; the
epoch with the best accuracy on them is kept; if several are equally good, the last of these.

They are meant for accelerators. The stated times are for a step, and for training on 60,000 images of 28x28, on two CPU
cores; the latter is computed from the former.
"""

import numpy as np
import optax

from efsgd_jax.evaluation.metrics.epochs import Predict, TrainingOptions, train_by_epochs
from efsgd_jax.evaluation.metrics.resnet import ResNet, ResNeXt, WideResNet


def _adam(batches: int) -> optax.GradientTransformation:
    return optax.adam(optax.exponential_decay(0.01, 20 * batches, 0.2, staircase=True))


OPTIONS = TrainingOptions(epochs=50, batch_size=256, optimizer=_adam, held_out=5 / 60, latest=True, ema_decay=0.9999)


def dpimagebench_resnet(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """ResNet-110, with 1.7 million parameters: 5.4 s for a step, 16 hours for training."""
    return train_by_epochs(ResNet(num_classes), images, labels, OPTIONS, seed).predict


def dpimagebench_wrn(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """WRN-40-4 with dropout 0.3 and 8.9 million parameters: 13 s for a step, a day and a half for training."""
    return train_by_epochs(WideResNet(num_classes), images, labels, OPTIONS, seed).predict


def dpimagebench_resnext(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """ResNeXt-29, 8x64d, with 34.4 million parameters: 50 s for a step (extrapolated from batches of 32), six days for
    training."""
    return train_by_epochs(ResNeXt(num_classes), images, labels, OPTIONS, seed).predict
