"""Published evaluation protocols, by name."""

import math
from collections.abc import Callable
from typing import NamedTuple

LAST_STEP = "the generator after its last step"
FROM_FILE = "images from a file, whatever generator made them"


class Delta(NamedTuple):
    """The delta for which a paper states its epsilons.

    Attributes:
      rule: the formula as text, for messages; "" for a constant.
      of: function from the number N of real training images to delta.
    """

    rule: str
    of: Callable[[int], float]


class Protocol(NamedTuple):
    """How a paper evaluates synthetic images.

    Attributes:
      num_images: number of synthetic images.
      classifiers: classifiers of gen2real and, if the paper reports it, of real2gen: keys of ``CLASSIFIERS``. real2gen
        trains on the whole real training split.
      paper: the paper.
      delta: the delta of the paper's epsilons.
      selection: which epoch of a classifier is scored, and on which images it was chosen.
      deviations: how the evaluation here differs from the paper's.
      real2gen: whether the paper reports real2gen.
      averaged: whether the paper reports the mean and standard deviation of gen2real accuracy over its classifiers.
      fid_images: largest number of synthetic images, in random order, that FID is computed from.
      splits: number of parts of the inception score.
      cost: time to train all the classifiers on two CPU cores, for messages; "" if it is a few minutes.
    """

    num_images: int
    classifiers: tuple[str, ...]
    paper: str
    delta: Delta
    selection: str
    deviations: tuple[str, ...]
    real2gen: bool = False
    averaged: bool = False
    fid_images: int = 60_000
    splits: int = 10
    cost: str = ""


PROTOCOLS = {
    # The evaluation code of GS-WGAN, https://github.com/DingfanChen/GS-WGAN (Chen, Orekondy and Fritz, arXiv
    # 2006.08265), which later papers use too.
    "dpac": Protocol(
        num_images=60_000,
        classifiers=("mlp", "cnn"),
        paper="Chen et al., Private Image Generation With Dual-Purpose Auxiliary Classifier, CVPR 2023",
        delta=Delta("", lambda n: 1e-5),
        selection="each classifier after its last step, which is not chosen by its score on any images",
        deviations=(
            "CNN: this library's, 2,000 steps of Adam; GS-WGAN's code: LeNet, 50 epochs of SGD",
            "MLP: scikit-learn's, at most 100 epochs; GS-WGAN's code: 200",
            "real2gen: of all synthetic images; GS-WGAN's code: of 10,000",
            "IS: by this library's CNN; GS-WGAN's code: by a VGG-11 trained on real images",
            "FID: of at most 20,000 images and as many training ones; GS-WGAN's code: of all real ones, by InceptionV3",
        ),
        real2gen=True,
        fid_images=20_000,
    ),
    # https://github.com/nv-tlabs/DPDM
    "dpdm": Protocol(
        num_images=60_000,
        classifiers=("dpdm_logistic_regression", "dpdm_mlp", "dpdm_cnn"),
        paper="Dockhorn et al., Differentially Private Diffusion Models, arXiv 2210.09929",
        delta=Delta("", lambda n: 1e-5),
        selection="each classifier after its best epoch on a held-out tenth of the synthetic images",
        deviations=(
            "60,000 images and a tenth held out are this library's choice; the code takes two folders of any size",
            "batches are drawn anew in each epoch and are all full, biases start at 0",
            "the CNN sees images smaller than 18x18 enlarged",
            "FID: InceptionV3's only if its weights are given",
        ),
        cost="a quarter of an hour",
    ),
    # https://github.com/2019ChenGong/DPImageBench
    "dpimagebench": Protocol(
        num_images=60_000,
        classifiers=("dpimagebench_resnet", "dpimagebench_wrn", "dpimagebench_resnext"),
        paper="Gong et al., DPImageBench, arXiv 2503.14681",
        delta=Delta("1/(N ln N)", lambda n: 1 / (n * math.log(n))),
        selection="each classifier after its best epoch on a held-out twelfth of the synthetic images "
        "(the benchmark's synthetic validation; its noisy validation on real images is not offered)",
        deviations=(
            "CIFAR data sets have other networks in the benchmark, and 200 epochs of SGD",
            "batches are all full",
            "FID, IS, precision and recall: InceptionV3's only if its weights are given; FLD and ImageReward: left out",
        ),
        averaged=True,
        splits=1,
        cost="more than a week",
    ),
}


def protocol_lines(
    protocol: Protocol, delta: float | None, num_real: int, num_images: int, *, of_run: bool = True
) -> list[str]:
    """The remarks that are printed with scores of a protocol: its paper, and how these scores differ from the paper's.

    Args:
      protocol: a value of ``PROTOCOLS``.
      delta: the run's delta; None for images whose privacy is not known, or of a run without a guarantee.
      num_real: number of images that the generator was trained on.
      num_images: number of synthetic images that were scored.
      of_run: whether a run of this library generated the images, so that its generator is known.
    """
    lines = [f"after {protocol.paper}", f"scored: {LAST_STEP if of_run else FROM_FILE}; {protocol.selection}"]
    lines += [f"differs: {text}" for text in protocol.deviations]
    if num_images != protocol.num_images:
        lines.append(f"NOT the protocol's {protocol.num_images} images: do not compare")
    expected = protocol.delta.of(num_real)
    if delta is not None and not math.isclose(delta, expected, rel_tol=0.01):
        rule = f"{protocol.delta.rule} = " if protocol.delta.rule else ""
        lines.append(f"delta {delta:g}; the protocol's is {rule}{expected:.2g}: do not compare epsilons directly")
    return lines
