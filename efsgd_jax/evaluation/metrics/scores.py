"""The scores of an evaluation, and their conversion to a text table and to JSON."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from efsgd_jax.evaluation.metrics.utility import Utility

# Names of classifiers in the heads of columns, what they stand for, and names of the networks whose features are
# compared.
SHORT_NAMES = {
    "logistic_regression": "LR",
    "mlp": "MLP",
    "cnn": "CNN",
    "gradient_boosting": "trees",
    "dpdm_logistic_regression": "DPDM LR",
    "dpdm_mlp": "DPDM MLP",
    "dpdm_cnn": "DPDM CNN",
    "dpimagebench_resnet": "ResNet",
    "dpimagebench_wrn": "WRN",
    "dpimagebench_resnext": "ResNeXt",
}
MEANINGS = {
    "logistic_regression": "logistic regression",
    "mlp": "multilayer perceptron",
    "gradient_boosting": "gradient-boosted trees",
}
EXTRACTORS = {"classifier": "a CNN trained on the real training split", "inception": "InceptionV3"}

# The parts of fidelity by the names that torch-fidelity gives them, and the keys of each.
FIDELITY = {
    "fid": ("fid",),
    "kid": ("kid", "kid_std"),
    "isc": ("inception_score", "inception_score_std"),
    "prc": ("precision", "recall", "density", "coverage"),
}


class Scores(NamedTuple):
    """The scores that were requested; those that were not are empty.

    Attributes:
      class_names: names of the classes, in the order of the labels.
      gen2real: for each classifier, its utility when trained on synthetic images and tested on the real test split.
      real2gen: for each classifier, its utility when trained on real images and tested on synthetic ones.
      fidelity: the result of ``fidelity_scores`` and, for the classifier, its accuracy on the real test split
        (``real_accuracy``), for each network whose features are compared: ``classifier`` or
        ``inception``. Those of different networks cannot be compared; only ``inception``'s FID is that of papers.
      copying: ``flagged``, ``exact_copies``, ``spaces`` (a ``Space`` for pixels and one for the classifier's features)
        and the ``closest`` pairs of a generated and a training image.
      num_images: number of synthetic images that were scored.
      protocol: a key of ``PROTOCOLS``, or "" without a protocol.
      remarks: what a reader must know to compare the scores with others.
    """

    class_names: tuple[str, ...]
    gen2real: dict[str, Utility] = {}  # noqa: RUF012, never changed
    real2gen: dict[str, Utility] = {}  # noqa: RUF012
    fidelity: dict[str, dict[str, float]] = {}  # noqa: RUF012
    copying: dict[str, Any] = {}  # noqa: RUF012
    num_images: int = 0
    protocol: str = ""
    remarks: tuple[str, ...] = ()


def only(scores: Scores, metrics: Collection[str] | None) -> Scores:
    """The scores without the parts of fidelity that were not asked for; all of them if ``fidelity`` itself was, or if
    ``metrics`` is None."""
    if metrics is None or "fidelity" in metrics:
        return scores
    kept = {"num_images", *(key for name in metrics for key in FIDELITY.get(name, ()))}
    parts = {name: {k: v for k, v in m.items() if k in kept} for name, m in scores.fidelity.items()}
    return scores._replace(fidelity=parts)


def to_json(scores: Scores) -> dict[str, Any]:
    """Converts scores to values for ``json``. Empty parts are left out.

    The recall of a class without test images is NaN, which JSON lacks; it becomes None.
    """

    def one(u: Utility) -> dict[str, Any]:
        per_class = {c: None if math.isnan(v) else v for c, v in zip(scores.class_names, u.per_class, strict=True)}
        return {
            "accuracy": u.accuracy,
            "std": u.std,
            "accuracies": list(u.accuracies),
            "per_class": per_class,
            "confusion": u.confusion.tolist(),
            "num_train": u.num_train,
            "num_test": u.num_test,
        }

    parts = {
        "gen2real": {name: one(u) for name, u in scores.gen2real.items()},
        "real2gen": {name: one(u) for name, u in scores.real2gen.items()},
        "fidelity": scores.fidelity,
        "copying": scores.copying,
        "remarks": list(scores.remarks),
    }
    return {"num_images": scores.num_images, **{name: part for name, part in parts.items() if part}}


def to_table(scores: Scores) -> str:
    """The scores as text: a table of accuracies in percent (a row for each class, a column for each classifier),
    followed by the other scores and the remarks."""
    lines = _utility_lines(scores)
    for name, measures in scores.fidelity.items():
        lines += ["", *_fidelity_lines(name, measures)]
    if scores.copying:
        lines += ["", *_copying_lines(scores.copying)]
    how_many = f"{scores.num_images} synthetic images"
    lines += ["", f"protocol {scores.protocol}: {how_many}" if scores.protocol else how_many, *scores.remarks]
    return "\n".join(lines)


def _utility_lines(scores: Scores) -> list[str]:
    groups = {"gen2real": scores.gen2real, "real2gen": scores.real2gen}
    columns = [(kind, SHORT_NAMES.get(n, n), u) for kind, of in groups.items() for n, u in of.items()]
    if not columns:
        return []
    first = max(len(c) for c in (*scores.class_names, "class"))
    widths = [max(10, len(name) + 2) for _, name, _ in columns]
    kinds = ["" if i and columns[i - 1][0] == kind else kind for i, (kind, _, _) in enumerate(columns)]

    def row(head: str, cells: list[str]) -> str:
        return f"{head:{first}}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))

    lines = [row("", kinds).rstrip(), row("class", [name for _, name, _ in columns])]
    for i, c in enumerate(scores.class_names):
        lines.append(row(c, [f"{100 * u.per_class[i]:.1f}" for *_, u in columns]))
    lines.append(row("all", [f"{100 * u.accuracy:.1f}" for *_, u in columns]))
    if any(u.std for *_, u in columns):
        lines.append(row("±", [f"{100 * u.std:.1f}" if u.std else "" for *_, u in columns]))
    names = [n for n in MEANINGS if any(n in of for of in groups.values())]
    lines.append("in percent; gen2real: trained on generated images, tested on real ones; real2gen: the reverse")
    meanings = ", ".join(f"{SHORT_NAMES[n]}: {MEANINGS[n]}" for n in names)
    return lines + [meanings] * bool(names)


def _fidelity_lines(name: str, m: Mapping[str, float]) -> list[str]:
    lines = [f"features of {EXTRACTORS.get(name, name)} ({m['num_images']:.0f} images and as many training images)"]
    distances = [f"FID {m['fid']:.3f}"] if "fid" in m else []
    distances += [f"KID {m['kid']:.5f} ± {m['kid_std']:.5f}"] if "kid" in m else []
    if "inception_score" in m:
        distances += [f"IS {m['inception_score']:.3f} ± {m['inception_score_std']:.3f}"]
    manifold = [f"{key} {m[key]:.3f}" for key in FIDELITY["prc"] if key in m]
    lines += [f"  {'   '.join(cells)}" for cells in (distances, manifold) if cells]
    if name != "inception":
        lines.append(
            "  of this library's CNN: compare them on the same data and for equally many images, not with papers"
        )
    if "real_accuracy" in m:
        lines.append(
            f"  trained on real images, it is right for {100 * m['real_accuracy']:.1f}% of the real test images"
        )
    return lines


def _copying_lines(copying: Mapping[str, Any]) -> list[str]:
    lines = ["copying: FLAGGED, images are closer to training images than new ones would be"]
    if not copying["flagged"]:
        lines = ["copying: none found"]
    lines.append(f"  images that are a training image to the last pixel: {copying['exact_copies']}")
    for name, s in copying["spaces"].items():
        lines.append(
            f"  {name}: {100 * s['closer_to_train']:.1f}% nearest to a training image (new ones: "
            f"{100 * s['expected_closer_to_train']:.1f}%, z = {s['z']:.1f}), authenticity {s['authenticity']:.2f}, "
            f"near-duplicates of training images {100 * s['near_duplicates']:.1f}% (1% of held-out images are)"
        )
    return lines
