"""The attack report of anonymised images: attackers who have the originals, the labels, the generator and the tool."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.protect import embedder
from efsgd_jax.protect.anonymise import Anonymised, Recogniser
from efsgd_jax.protect.embedder import UNSEEN, train_embedder
from efsgd_jax.protect.latent import Latent
from efsgd_jax.protect.reidentify import Attack, assigned_in_class, cosines, linear_map, pixels
from efsgd_jax.protect.sources import Labelled

# Names of two attackers.
BY_ATTACKED = "the recogniser that was attacked"
BY_UNSEEN = "an unseen recogniser: other images, other network"
BY_CODES = "the codes of the generator"
BY_ALL = "codes, less what the attacked recogniser still finds alike, each original used once"
# Cosines above those that the search aims at by this much speak against an original.
SLACK = 0.05
# Number of images that a recogniser sees at a time.
CHUNK = 500
# Ridge of the linear map, for each pair; codes have about unit variance.
RIDGE = 0.1


# tool(images, seed) runs the search with the options of the run, and a seed of the attacker's.
Tool = Callable[[Labelled, int], Anonymised]


def attackers(
    originals: Labelled,
    own: Labelled,
    latent: Latent,
    attacked: Recogniser,
    tool: Tool,
    seeds: list[int],
    *,
    training: embedder.Training,
    pairs: int,
) -> list[Attack]:
    """Those who try to recognise anonymised images; the first one has the recogniser that was attacked.

    Args:
      originals: the originals, which all of them have.
      own: other images that they have; disjoint from those that ``attacked`` learned from.
      latent: the generator.
      attacked: the recogniser that was attacked.
      tool: the tool.
      seeds: four seeds of theirs.
      training: how long their networks learn.
      pairs: from how many of ``own`` they make pairs.
    """
    apply = jax.jit(attacked)

    def seen(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        parts = [jnp.asarray(images[i : i + CHUNK]) / 255.0 for i in range(0, len(images), CHUNK)]
        return np.nan_to_num(np.concatenate([apply(part) for part in parts]))

    unseen = train_embedder(*own, UNSEEN, seeds[0], training)
    few = Labelled(own.images[:pairs], own.labels[:pairs])
    made = tool(few, seeds[2])
    of_pairs = train_embedder(*few, UNSEEN, seeds[1], training, partners=made.outputs)
    corrected = _corrected(latent, few, made)
    again = tool(originals, seeds[3]).outputs
    likely = np.mean([unseen.embed(again[:, k]) for k in range(again.shape[1])], axis=0)
    return [
        Attack(BY_ATTACKED, seen, seen(*originals)),
        Attack("the same, by the least alike of all", lambda images, labels: -seen(images, labels), seen(*originals)),
        Attack(BY_UNSEEN, _by(unseen), unseen.embed(originals.images)),
        Attack(
            "a recogniser trained on pairs that the attacker makes", _by(of_pairs), of_pairs.embed(originals.images)
        ),
        Attack("the tool, run again on each original with another seed", _by(unseen), likely),
        Attack(BY_CODES, latent.codes, latent.codes(*originals)),
        Attack("the codes, by a linear map learned from the same pairs", corrected, latent.codes(*originals)),
        Attack("pixels", pixels, pixels(*originals)),
    ]


def together(
    codes: Attack, seen: Attack, kinds: tuple[np.ndarray, ...], labels: np.ndarray, target: float
) -> list[float]:
    """The share of each kind of images that an attacker assigns to their originals who puts everything together.

    It knows the class of each image and that each original has one. It prefers originals with a like code, and none
    that the recogniser which was attacked finds more alike than the search lets an image be.

    Args:
      codes: the attack ``BY_CODES``.
      seen: the attack ``BY_ATTACKED``.
      kinds: kinds of images, each with one for each original, uint8 ``[N, S, S, C]``.
      labels: the classes of the originals.
      target: the cosine that the search aims at.
    """
    shares = []
    for images in kinds:
        alike = cosines(seen.vectors(images, labels), seen.gallery)
        score = cosines(codes.vectors(images, labels), codes.gallery) - np.maximum(alike - target - SLACK, 0)
        shares.append(assigned_in_class(score, labels))
    return shares


def _corrected(latent: Latent, few: Labelled, made: Anonymised) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What the codes of anonymised images say of those of their originals, learned from pairs."""
    found = np.concatenate([latent.codes(made.outputs[:, k], few.labels) for k in range(made.outputs.shape[1])])
    wanted = np.concatenate([made.codes] * made.outputs.shape[1])
    matrix = linear_map(found, wanted, RIDGE * len(found))
    return lambda images, labels: latent.codes(images, labels) @ matrix


def _by(network: embedder.Embedder) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda images, labels: network.embed(images)
