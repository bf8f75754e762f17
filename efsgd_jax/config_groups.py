"""The groups of configuration keys that every method has; ``--help=KEY`` prints the text of their attributes."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DataKeys:
    """``config.data``: the data set and how its images are read.

    Attributes:
      name: the data source: digits, mnist, fashion_mnist, npz, idx, folder, parquet, celeba or tfds:NAME.
      path: file or directory of the data; not needed for digits, mnist and fashion_mnist.
      image_size: height and width in pixels to which images are cropped and resized; 0 keeps the source's own size (32
        for celeba).
      channels: number of channels, 1 (grey) or 3 (RGB). 0 is 3 for image files (folder, parquet, celeba), and for
        the other sources the number of channels of their arrays.
      attribute: name of the attribute or column that is the label, for celeba, tfds, parquet and a folder with a list
        of labels.
      labels: for folder, a list of the images' labels, such as labels.csv, by its name below the path or its own path.
        Empty for class folders, or for a list that has a known name, such as StyleGAN's dataset.json.
      groups: which person, or other unit, each image is of, so that the guarantee is for one person with all their
        images: for folder and celeba a list, such as patients.csv, or for folder the word folder, if the directory
        above an image names the person; for npz the name of an array, for parquet of a column. Empty if each image is a
        unit.
      images_per_group: with groups, the largest number of images of a group that are used. Of a larger group, a choice
        by hashes of its images is used.
      classes: all classes, including any without an image, as their number or as their names with commas between them.
        Empty for the classes that the source names by its folders or by an array class_names. 1, or one name, is for
        images without labels: any labels are not read.
      value_range: the values that become black and white, such as 0..16 or -1..1. Empty for 0..255 if the values are
        integers and 0..1 if they are floats.
      test_fraction: probability of each image to be held out as a test image, if the source has no test part.
    """

    name: str = "digits"
    path: str = ""
    image_size: int = 0
    channels: int = 0
    attribute: str = ""
    labels: str = ""
    groups: str = ""
    images_per_group: int = 16
    classes: str = ""
    value_range: str = ""
    test_fraction: float = 0.2


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """``config.privacy``: the privacy budget, the noise and error feedback.

    Attributes:
      epsilon: the target epsilon, at which training stops. inf: no target; the run then has no noise and no guarantee,
        or, with a noise_multiplier, takes all steps and reports their epsilon.
      delta: the delta of the guarantee; below 1/N.
      noise_multiplier: standard deviation of the noise over the sensitivity; 0 solves for the smallest one with which
        all steps stay within epsilon.
      feedback: mode of error feedback. none; local (a residual per example, at no cost); private (a noised residual, at
        no cost); hidden (as published; it costs much more, since its epsilon is computed without assumptions).
      feedback_l2_norm_clip: D in docs/privacy/feedback.md. For hidden the clip norm of the residual of the sum; for
        local the largest norm of the residual of one example (of one shard in sanitized_gan); for private a norm
        above the clip norm C: of a gradient that is longer than C, the part between C and D is fed back, and what lies
        beyond D is lost. Without feedback it must be 0.
      feedback_decay: for local the factor of a residual when it is stored; for private the decay of the moving average.
        -1 for the mode's default, 0.5 for local and 0.9 for private.
      feedback_share: for private the share of the budget 1/sigma^2 that is spent on the second noisy sum, which has
        what clipping removed. 0 for the default, 0.1.
      region: the only pixels of an image that are private, as top,left,height,width, such as 9,9,14,14. All other
        pixels, the labels and who is in the data are then public, and neither images nor persons are protected
        (docs/privacy/regions.md). Empty for whole images.
    """

    epsilon: float = 10.0
    delta: float = 1e-5
    noise_multiplier: float = 0.0
    feedback: str = "none"
    feedback_l2_norm_clip: float = 0.0
    feedback_decay: float = -1.0
    feedback_share: float = 0.0
    region: str = ""


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """``config.train``: how often metrics and checkpoints are written, and the seed.

    Attributes:
      log_every: number of steps between two lines of metrics.
      grid_every: number of steps between two checkpoints; those of the last phase come with a grid of samples.
      seed: -1 for keys from the operating system's random source. Any other seed is for debugging and gives no
        guarantee.
      divide_above: on several devices, networks of more parameters than this are divided among them, with their
        averages and the optimizer's moments; each device has a copy of smaller ones.
    """

    log_every: int = 20
    grid_every: int = 200
    seed: int = -1
    divide_above: int = 100_000_000


@dataclasses.dataclass(frozen=True)
class PublicKeys:
    """``config.public``: public images for pre-training, which have no protection.

    Attributes:
      name: source of the public images, as in ``data.name``.
      path: their file or directory; cropped and coloured as the private ones.
      weights: file that ``efsgd pretrain`` wrote, in the place of ``public.path``.
    """

    name: str = "folder"
    path: str = ""
    weights: str = ""


GROUPS: dict[str, Any] = {
    "data": DataKeys(),
    "public": PublicKeys(),
    "privacy": PrivacyKeys(),
    "train": TrainKeys(),
}
