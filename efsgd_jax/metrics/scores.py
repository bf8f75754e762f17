"""What an evaluation found, as a table for people and as JSON."""

import math
from typing import Any, NamedTuple

from efsgd_jax.metrics.fidelity import SPLITS
from efsgd_jax.metrics.protocols import PROTOCOLS
from efsgd_jax.metrics.utility import Utility

SHORT_NAMES = {"logistic_regression": "LR", "cnn": "CNN", "mlp": "MLP"}


class Scores(NamedTuple):
    """Per classifier, the utility of the synthetic images; with ``fidelity`` or a protocol also IS and FID.

    Attributes:
      gen2real: trained on synthetic images, tested on the real test split.
      real2gen: trained on real images, tested on synthetic ones.
      class_names: of ``Utility.per_class``.
      fidelity: empty, or ``inception_score``, its ``inception_score_std`` over the splits, and ``fid_classifier``: the
        Frechet distance of features of a classifier of this data, not the FID of papers, whose features are
        InceptionV3's.
      protocol: a key of ``PROTOCOLS``, or "".
      num_images: how many synthetic images were scored.
      num_fid_images: how many of them, and of real ones, went into ``fid_classifier``.
    """

    gen2real: dict[str, Utility]
    real2gen: dict[str, Utility]
    class_names: tuple[str, ...]
    fidelity: dict[str, float] = {}  # noqa: RUF012, nobody changes it
    protocol: str = ""
    num_images: int = 0
    num_fid_images: int = 0


def to_json(scores: Scores) -> dict[str, Any]:
    """Plain values for ``json``; a class's NaN, which JSON lacks, as None."""

    def one(u: Utility) -> dict[str, Any]:
        per_class = {c: None if math.isnan(v) else v for c, v in zip(scores.class_names, u.per_class, strict=True)}
        return {**u._asdict(), "per_class": per_class}

    kinds = {"gen2real": scores.gen2real, "real2gen": scores.real2gen}
    utilities = {kind: {name: one(u) for name, u in values.items()} for kind, values in kinds.items()}
    counts = {"num_images": scores.num_images, "num_fid_images": scores.num_fid_images}
    return {**utilities, "fidelity": scores.fidelity, **counts}


def to_table(scores: Scores) -> str:
    """A plain-text table: one row per class, one column per score, percentages; below it IS and FID."""
    columns = [(f"gen2real {SHORT_NAMES[n]}", u) for n, u in scores.gen2real.items()]
    columns += [(f"real2gen {SHORT_NAMES[n]}", u) for n, u in scores.real2gen.items()]
    width = max(len(c) for c in (*scores.class_names, "class", "all"))
    lines = ["  ".join([f"{'class':{width}}", *(f"{name:>12}" for name, _ in columns)])]
    for i, c in enumerate(scores.class_names):
        lines.append("  ".join([f"{c:{width}}", *(f"{100 * u.per_class[i]:>12.1f}" for _, u in columns)]))
    lines.append("  ".join([f"{'all':{width}}", *(f"{100 * u.accuracy:>12.1f}" for _, u in columns)]))
    return "\n".join([*lines, *_fidelity_lines(scores), *_protocol_lines(scores)])


def _fidelity_lines(scores: Scores) -> list[str]:
    if not scores.fidelity:
        return []
    mean, std, distance = (scores.fidelity[k] for k in ("inception_score", "inception_score_std", "fid_classifier"))
    return [
        f"IS (CNN trained on real images)  {mean:.3f} ± {std:.3f}  ({scores.num_images} images in {SPLITS} splits)",
        f"FID (classifier features)        {distance:.3f}  ({scores.num_fid_images} images and as many real ones)",
    ]


def _protocol_lines(scores: Scores) -> list[str]:
    if not scores.protocol:
        return []
    asked = PROTOCOLS[scores.protocol].num_images
    deviation = f"; NOT the protocol's {asked}, do not compare" if scores.num_images != asked else ""
    return [f"protocol {scores.protocol}: {scores.num_images} synthetic images{deviation}"]
