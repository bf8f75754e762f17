"""The hyperparameters of ``pate_triple_gan``: the keys of ``config.method``, and the shares of the budget they set."""

import dataclasses

from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters as MixtureHyperparameters


@dataclasses.dataclass(frozen=True)
class ClassifierOptions:
    """The private classifier, which learns from few labels and labels all other images.

    Attributes:
      labelled: part of the images whose labels are read. Which these are follows from the pixels of each image alone.
      classifier_share: part of the budget 1/sigma^2 of mixture and classifier that the classifier spends.
      feature_directions: largest number of principal directions of the features that the classifier reads.
      classifier_steps: number of steps of full-batch gradient descent.
      classifier_learning_rate: learning rate of the first step; it decays linearly to a tenth.
    """

    labelled: float = 0.034
    classifier_share: float = 0.4
    feature_directions: int = 100
    classifier_steps: int = 60
    classifier_learning_rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class DiscriminatorOptions:
    """The discriminators, each on a shard of its own, and the generator that they score.

    Attributes:
      discriminator_share: part of epsilon that their gradients spend. With 0 there are no discriminators, and the
        images are those of the mixture.
      width: number of channels of the generator's feature maps.
      blocks: number of the generator's residual blocks.
      learning_rate: Adam's learning rate for the generator.
      ema_decay: decay of the moving average of the generator's parameters that is released.
      critic_width: number of channels of the first convolution of a discriminator.
      critic_steps: number of steps of a discriminator each time its shard trains.
      critic_batch_size: number of real images of the shard in each of these steps.
      critic_learning_rate: Adam's learning rate for discriminators.
      gradient_penalty: weight of the gradient penalty in the discriminator's loss.
      warm_steps: number of steps of every discriminator before the generator's first step; they cost no epsilon.
    """

    discriminator_share: float = 0.1
    width: int = 16
    blocks: int = 2
    learning_rate: float = 3e-4
    ema_decay: float = 0.9
    critic_width: int = 16
    critic_steps: int = 2
    critic_batch_size: int = 32
    critic_learning_rate: float = 3e-4
    gradient_penalty: float = 10.0
    warm_steps: int = 20


@dataclasses.dataclass(frozen=True)
class Hyperparameters(ClassifierOptions, DiscriminatorOptions, MixtureHyperparameters):
    """The hyperparameters of classifier, discriminators, and the mixture that the generator starts from."""


# Parts of the classifier's budget 1/sigma^2: mean of the features, their principal directions, descent.
SHARES = (0.03, 0.27, 0.7)


def classifier_shares(options: ClassifierOptions) -> dict[str, tuple[float, int]]:
    """Name of each phase of the classifier, in order -> its part of the classifier's budget, and its steps."""
    mean, directions, descent = SHARES
    steps = options.classifier_steps
    return {"feature mean": (mean, 1), "feature directions": (directions, 1), "classifier": (descent, steps)}
