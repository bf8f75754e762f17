"""``evaluate``: gen2real and real2gen of a finished run."""

import math
from pathlib import Path
from typing import NamedTuple

from efsgd_jax.errors import UserError
from efsgd_jax.metrics import CLASSIFIERS, Utility, utility
from efsgd_jax.runs.files import write_json
from efsgd_jax.runs.sample import sample
from efsgd_jax.runs.setup import finished_run

MAX_SYNTHETIC = 10_000


class Scores(NamedTuple):
    """Per classifier, the utility of the synthetic images."""

    gen2real: dict[str, Utility]
    real2gen: dict[str, Utility]
    class_names: tuple[str, ...]


def evaluate(
    workdir: str | Path,
    *,
    num_images: int | None = None,
    classifiers: tuple[str, ...] = tuple(CLASSIFIERS),
    seed: int = 0,
) -> Scores:
    """Scores a finished run against the data set it was trained on; writes ``private/scores.json``.

    gen2real: trained on synthetic images, tested on the real test split. real2gen: trained on the real training
    split, tested on synthetic images.

    Args:
      workdir: a finished run, with its ``private/``.
      num_images: synthetic images; None for as many as there are real training images, at most 10,000. The real
        training split is cut to the same number for real2gen.
      classifiers: which of ``CLASSIFIERS``.
      seed: of the synthetic images.

    Raises:
      UserError: the run is not finished, or its data is no longer there.

    Formal guarantees:
      None: scores read real images and are not covered by the run's epsilon.
    """
    unknown = sorted(set(classifiers) - set(CLASSIFIERS))
    if unknown:
        raise UserError(f"unknown classifier {unknown[0]!r}; use some of {', '.join(CLASSIFIERS)}")
    directory, data = finished_run(workdir)
    n = num_images or min(len(data.train_labels), MAX_SYNTHETIC)
    fake = sample(workdir, n, seed=seed)
    real_train = data.train_images[:n], data.train_labels[:n]
    real_test = data.test_images, data.test_labels
    k = data.spec.num_classes
    generated = fake.images, fake.labels
    scores = Scores(
        gen2real={name: utility(generated, real_test, k, name) for name in classifiers},
        real2gen={name: utility(real_train, generated, k, name) for name in classifiers},
        class_names=data.class_names,
    )
    write_json(directory.scores, _plain(scores), private=True)
    return scores


def _plain(scores: Scores) -> dict:
    def one(u: Utility) -> dict:
        per_class = {c: None if math.isnan(v) else v for c, v in zip(scores.class_names, u.per_class, strict=True)}
        return {**u._asdict(), "per_class": per_class}

    kinds = {"gen2real": scores.gen2real, "real2gen": scores.real2gen}
    return {kind: {name: one(u) for name, u in values.items()} for kind, values in kinds.items()}


def to_table(scores: Scores) -> str:
    """A plain-text table: one row per class, one column per score, percentages."""
    columns = [(f"gen2real {n}", u) for n, u in scores.gen2real.items()]
    columns += [(f"real2gen {n}", u) for n, u in scores.real2gen.items()]
    columns = [(name.replace("logistic_regression", "LR").replace("cnn", "CNN"), u) for name, u in columns]
    width = max(len(c) for c in (*scores.class_names, "class", "all"))
    lines = ["  ".join([f"{'class':{width}}", *(f"{name:>12}" for name, _ in columns)])]
    for i, c in enumerate(scores.class_names):
        lines.append("  ".join([f"{c:{width}}", *(f"{100 * u.per_class[i]:>12.1f}" for _, u in columns)]))
    lines.append("  ".join([f"{'all':{width}}", *(f"{100 * u.accuracy:>12.1f}" for _, u in columns)]))
    return "\n".join(lines)
