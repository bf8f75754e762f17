"""``confound``: protects images by the better of two noises, attacks the result, and says how it went."""

import secrets
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.protect.classifier import Training, train_classifier
from efsgd_jax.protect.confound import (
    RADIUS,
    Confounding,
    add_noise,
    class_patches,
    peak_signal_to_noise,
    train_confounder,
)
from efsgd_jax.protect.confound_attacks import UNSEEN, Row, attack_all, fewer_steps, score
from efsgd_jax.protect.output import Measured, Protection
from efsgd_jax.protect.sources import FEWEST, Chosen, Labelled

# The two noises: of the generator, and the baseline's.
GENERATOR, PATCHES = "noise of the generator", "random squares of each class"
NO_ATTACK = "none"
# Share of the images that neither the generator nor its classifier is trained on.
HELD_OUT = 0.2
# Test images, at most, by which the noise is chosen, and others by which everything is measured.
CHOICE, REPORT = 1000, 4000
RESISTS = ("a network that is trained on these images as they are, and then meets clean images",)
BREAKS = (
    "Unprotected copies of some of the images, or other images of the same classes.",
    "Grey copies, compression, random shifts and adversarial training, by as much as the table says.",
    "An attacker who knows how the noise was made and removes it, such as by the mean of each class.",
    "Whoever knows the seed of random squares: they are computed from it, and subtracted.",
    "People: the images look as before. Nothing that they show is hidden.",
    "Later methods: the noise cannot be changed once the images are out.",
)


class Options(NamedTuple):
    """How images are protected.

    Attributes:
      radius: largest change of a pixel, in 255ths, 1..255; 0 for 8 if the images have colours, and 16 if not.
      seed: of everything that is random, at least 0. Secret; None for a fresh one of 128 bits, which is not kept.
      training: how every classifier is trained.
      confounding: how the generator is trained.
    """

    radius: int = 0
    seed: int | None = None
    training: Training = Training()
    confounding: Confounding = Confounding()


class Candidate(NamedTuple):
    """One of the two noises.

    Attributes:
      name: ``GENERATOR`` or ``PATCHES``.
      images: the protected images, uint8 ``[N, S, S, C]``, the training images first.
      chosen_by: accuracy of a new network on clean test images by which the noise is chosen.
      accuracy: accuracy of the same network on other clean test images, by which everything else is measured.
    """

    name: str
    images: np.ndarray
    chosen_by: float
    accuracy: float


class Confounded(NamedTuple):
    """Protected images and what an attacker makes of them.

    Attributes:
      images: uint8 ``[N, S, S, C]``, the training images and then the test images, in the order of ``labels``.
      labels: their labels, int ``[N]``.
      learned_from: number of training images among them, from which the noise and every attacker learned.
      candidates: the noise that ``images`` have, and then the other one.
      rows: the attacks; the first is training on the images as they are.
      psnr: peak signal-to-noise ratio, in dB.
      largest: the largest change of a pixel, in 255ths.
      radius: what it may be at most.
    """

    images: np.ndarray
    labels: np.ndarray
    learned_from: int
    candidates: tuple[Candidate, Candidate]
    rows: tuple[Row, ...]
    psnr: float
    largest: int
    radius: int

    @property
    def useless(self) -> bool:
        """Whether a network that trains on the images as they are loses less than a tenth of its accuracy."""
        return self.rows[0].protected > 0.9 * self.rows[0].unprotected


# Said first if little was lost.
USELESS = "Training on these images as they are: a network learned nearly as much from them as from unprotected ones."


def radius_for(channels: int, asked: int) -> int:
    """The largest change of a pixel, in 255ths.

    Raises:
      UserError: what was asked is no possible change.
    """
    if not 0 <= asked <= 255:
        raise UserError(
            f"max_change is {asked}; it is 1 to 255, or 0 for {RADIUS[3]} in colour and {RADIUS[1]} in grey"
        )
    return asked or RADIUS[channels]


def confound(
    chosen: Chosen,
    test: Labelled,
    num_classes: int,
    options: Options | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Confounded:
    """Protects images by the noise that protects better in this very run, and attacks the result.

    Args:
      chosen: the images to protect. Those of the test split get the noise that was learned without them; no attacker
        learns from them.
      test: all clean images of the test split, for the choice and the report.
      num_classes: number K of classes.
      options: how to protect; None for the defaults.
      say: is told what was done.

    Raises:
      UserError: the radius is impossible, or there are too few test images to measure anything.

    Formal guarantees:
      None. The images stay what they are, and every attack of the report may be improved.
    """
    asked, given, training, confounding = options or Options()
    secret = secrets.randbits(128) if given is None else given
    seed = secret % 2**31  # of networks: nothing is found by trying those
    clean, every = chosen.train, chosen.train.and_then(chosen.test)
    radius = radius_for(clean.images.shape[3], asked)
    if len(test.labels) < 2 * FEWEST:
        raise UserError(
            f"there are {len(test.labels)} test images; at least {2 * FEWEST} are needed for the attacks: supply more "
            "or, if the source has no test part of its own, raise --config.data.test_fraction"
        )
    order, tested = (np.random.default_rng(seed).permutation(len(x.labels)) for x in (clean, test))
    at = min(CHOICE, len(tested) // 2)
    choice, report = test.rows(tested[:at]), test.rows(tested[at : at + REPORT])
    unseen, seen = np.split(order, [round(HELD_OUT * len(order))])
    known = clean.rows(seen)

    # Half of the steps: the noise that a classifier reads which is surer of clean images protects less.
    reader = train_classifier(known.images, known.labels, num_classes, seed, fewer_steps(training))
    say(f"the classifier that the generator begins with: {reader.accuracy(*report):.3f} on clean test images")
    generator = train_confounder(known.images, known.labels, reader, radius, seed, confounding)
    noises = {
        GENERATOR: generator.noise(*every),
        PATCHES: class_patches(clean.images.shape[1:], num_classes, secret)[every.labels],
    }
    victim = seed + 1  # the attacker's network begins elsewhere than the one that the generator was trained with

    def tried(name: str) -> Candidate:
        images = add_noise(every.images, noises[name], radius)
        found = train_classifier(images[: len(clean.labels)], clean.labels, num_classes, victim, training)
        say(f"{name}: {found.accuracy(*report):.3f} after training on protected images")
        return Candidate(name, images, found.accuracy(*choice), found.accuracy(*report))

    first, second = sorted(map(tried, noises), key=lambda candidate: candidate.chosen_by)
    rows = [Row(NO_ATTACK, first.accuracy, score(clean, report, num_classes, victim, training))]
    protected = first.images[: len(clean.labels)]
    part = [Labelled(images[unseen], clean.labels[unseen]) for images in (protected, clean.images)]
    rows.append(Row(UNSEEN, *(score(x, report, num_classes, victim, fewer_steps(training)) for x in part)))
    for row in attack_all(protected, clean, report, num_classes, radius, victim, training):
        say(f"{row.attack}: {row.protected:.3f}; unprotected {row.unprotected:.3f}")
        rows.append(row)
    largest = int(np.abs(first.images.astype(np.int16) - every.images).max())
    psnr = peak_signal_to_noise(every.images, first.images)
    return Confounded(
        first.images, every.labels, len(clean.labels), (first, second), tuple(rows), psnr, largest, radius
    )


def protection_of(made: Confounded, source: str, options: Options) -> Protection:
    """What ``PROTECTION.md`` says of it."""
    chosen, other = made.candidates
    learned, more = made.learned_from, len(made.images) - made.learned_from
    count = f"{learned:,} images" + (f" and {more:,} test images" if more else "")
    attacks = Measured(
        f"accuracy on clean test images of a new CNN, trained on the {learned:,} images",
        ("attack", "protected", "unprotected"),
        [tuple(row) for row in made.rows],
    )
    choice = Measured(
        "the two noises; the one from which less is learned was used",
        ("noise", "accuracy, for the choice", "accuracy, other test images", "PSNR, dB", "largest change, 255ths"),
        [
            (chosen.name, chosen.chosen_by, chosen.accuracy, made.psnr, float(made.largest)),
            (other.name, other.chosen_by, other.accuracy, "not used", "not used"),
        ],
    )
    return Protection(
        "confound",
        f"Small noise was added to {count} of {source}, so that a network learns the noise in the place of what the "
        f"images show. Used was: {chosen.name}, with an accuracy of {chosen.accuracy:.3f}; the other, {other.name}, "
        f"left {other.accuracy:.3f}. For unprotected images it is {made.rows[0].unprotected:.3f}.",
        RESISTS,
        (USELESS, *BREAKS) if made.useless else BREAKS,
        {
            "max_change": made.radius,
            "seed": "fresh, and not kept" if options.seed is None else "given; keep it secret",
            "generator steps": options.confounding.steps,
            "steps of each classifier": options.training.steps, "batch size": options.training.batch_size,
            "held out from the generator": HELD_OUT,
        },
        (attacks, choice),
    )  # fmt: skip
