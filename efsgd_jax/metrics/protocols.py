"""Published evaluation protocols, by name."""

from typing import NamedTuple

FID_IMAGES = 20_000


class Protocol(NamedTuple):
    """What a paper's tables are made of, beside inception score and FID.

    Attributes:
      num_images: synthetic images for everything but FID, which takes the first ``FID_IMAGES`` of them, shuffled.
      classifiers: of gen2real and real2gen, keys of ``CLASSIFIERS``. real2gen trains on the whole real training split.
      paper: where it comes from.
    """

    num_images: int
    classifiers: tuple[str, ...]
    paper: str


PROTOCOLS = {
    # GS-WGAN's evaluation code, https://github.com/DingfanChen/GS-WGAN (Chen, Orekondy and Fritz, arXiv 2006.08265),
    # which later papers share. Two differences: the networks behind IS and FID, which are this library's CNN instead of
    # a VGG and InceptionV3; and real2gen, which is scored on all the synthetic images instead of 10,000 of them.
    "dpac": Protocol(
        num_images=60_000,
        classifiers=("mlp", "cnn"),
        paper="Chen et al., Private Image Generation With Dual-Purpose Auxiliary Classifier, CVPR 2023",
    ),
}
