"""``anonymise_images``: trains the recognisers, anonymises images, attacks the result, and writes the statement."""

import secrets
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import Dataset, to_uint8
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import feature_classifier
from efsgd_jax.protect import classifier, embedder
from efsgd_jax.protect.anonymise import Anonymised, Recogniser, Search, anonymise
from efsgd_jax.protect.anonymise_attacks import BY_ALL, BY_ATTACKED, BY_CODES, BY_UNSEEN, attackers, together
from efsgd_jax.protect.anonymise_statement import statement
from efsgd_jax.protect.embedder import ATTACKED, changed, train_embedder
from efsgd_jax.protect.latent import Latent
from efsgd_jax.protect.output import write_images, write_protection
from efsgd_jax.protect.reidentify import attack_row, own_cosine, pixels, rank_one
from efsgd_jax.protect.restoring_key import RestoringKey, check_key_file, restore, write_key
from efsgd_jax.protect.sources import Labelled
from efsgd_jax.training.progress import say

# With fewer images that are not anonymised, the networks learn from all of them.
LEAST = 1000
# Fewest images that are anonymised: among fewer, a share of recognised images says little.
FEWEST = 100


class Learning(NamedTuple):
    """How long the networks learn.

    Attributes:
      recognisers: the recognisers.
      class_keeper: the classifier whose class the search keeps.
      independent: the classifier that counts how many classes were kept.
      pairs: images of which an attacker makes pairs.
    """

    recognisers: embedder.Training = embedder.Training()
    class_keeper: classifier.Training = classifier.Training(steps=300)
    independent: feature_classifier.Training = feature_classifier.Training(steps=1000)
    pairs: int = 2000


class Shares(NamedTuple):
    """Shares, or mean cosines, of three kinds of images.

    Attributes:
      copies: another copy of each original.
      fresh: an image of the class of each original, which was made without it.
      anonymised: the anonymised images.
    """

    copies: float
    fresh: float
    anonymised: float


class Outcome(NamedTuple):
    """What was made, and what attacks find.

    Attributes:
      originals: the originals.
      images: the anonymised images, uint8 ``[N, S, S, C]``, in the order of the originals and of ``samples.npz``.
      cosines: the mean cosine with the original, for the attacked recogniser.
      correlations: the mean correlation of pixels with those of the original: what is kept of its looks.
      class_kept: the share of images of their class, for an independent classifier.
      recognised: name of each attack -> the shares of images that are recognised among all originals; those of
        anonymised images among the originals of the class come last.
    """

    originals: Labelled
    images: np.ndarray
    cosines: Shares
    correlations: Shares
    class_kept: Shares
    recognised: dict[str, tuple[float, float, float, float]]


def latent_for(data: Dataset, latent: Latent, run: str) -> Latent:
    """The latent of a run, for the data's numbers of the classes.

    Raises:
      UserError: the run generates images of another shape, or does not know a class.
    """
    (height, width, channels), (side, _, wanted) = data.spec.shape, latent.spec.shape
    if (height, channels) != (side, wanted):
        raise UserError(
            f"{data.source} has images of {width}x{height}, {channels} channel(s), and {run} generates {side}x{side}, "
            f"{wanted} channel(s); set --config.data.image_size={side} --config.data.channels={wanted}, or name "
            "another --generator"
        )
    unknown = [name for name in data.class_names if name not in latent.class_names]
    if unknown:
        raise UserError(
            f"{run} does not know the class {unknown[0]!r} of {data.source}, but {', '.join(latent.class_names)}; name "
            "a --generator of the same classes"
        )
    return latent.numbered(np.array([latent.class_names.index(name) for name in data.class_names]))


def anonymise_images(
    data: Dataset,
    latent: Latent,
    out: str | Path,
    *,
    n: int = 500,
    embed: Recogniser | None = None,
    embed_name: str = "built in",
    seed: int | None = None,
    key_file: str | Path | None = None,
    search: Search | None = None,
    learning: Learning | None = None,
    progress: bool = True,
) -> Outcome:
    """Writes anonymised images and ``PROTECTION.md`` into the new directory ``out``.

    The images that are not anonymised are divided into halves. The recogniser that is attacked and the classifier of
    the search learn from one; the recognisers and the classifier of the attack report from the other. With fewer than
    ``LEAST`` such images, the halves are those of all images.

    Args:
      data: the images.
      latent: the generator, as ``latent_for`` returns it.
      out: an empty or new directory; it is marked as protected.
      n: how many images, chosen at random, are anonymised; 0 for all, those of a test split included.
      embed: the recogniser to attack; None for one that learns from the images.
      embed_name: what the statement calls it.
      seed: of everything that is random; None for a fresh one, which is not kept.
      key_file: where to write the codes that restore the originals; None to keep none.
      search: the energy.
      learning: how long the networks learn.
      progress: whether to say on standard error what is done.

    Raises:
      UserError: there are fewer than ``FEWEST`` images, ``embed`` finds nothing in one of them, or a file exists or
        cannot be written.

    Formal guarantees:
      None. What is written says of the attacks that were tried how often they succeed, and nothing of others.
    """
    search, learning = search or Search(), learning or Learning()
    available = len(data.train_labels) + len(data.test_labels)
    count = min(n, available) if n else available
    if count < FEWEST:
        raise UserError(f"{count} images are too few to measure attacks; anonymise at least {FEWEST} (--n, 0 for all)")
    if key_file is not None:
        check_key_file(key_file, out)
    entropy = secrets.randbits(128) if seed is None else seed
    sources = np.random.SeedSequence(entropy).spawn(11)
    seeds = [int(source.generate_state(1)[0]) for source in sources]
    # All of the entropy decides which images are chosen, and 64 bits their noise: who tries seeds has to try as many.
    noise = jax.random.wrap_key_data(jnp.asarray(sources[3].generate_state(2)))
    pool, classes = _shuffled(data, sources[0]), len(data.class_names)
    originals = _by_class(pool.rows(np.arange(count)))
    mine, theirs = _halves(pool, count)

    if embed is not None:
        _check_found(embed, originals.images, embed_name)
    say("training the recogniser to attack, and the classifier that keeps the class", shown=progress)
    attacked = embed or train_embedder(*mine, ATTACKED, seeds[1], learning.recognisers).recogniser()
    kept = classifier.train_classifier(*mine, classes, seeds[2], learning.class_keeper).params

    def classify(x: jax.Array) -> jax.Array:
        return jnp.asarray(classifier.Cnn(classes).apply(kept, 2 * x - 1))

    def tool(given: Labelled, key: jax.Array) -> Anonymised:
        return anonymise(*given, latent, attacked, classify, key, search)

    say(f"anonymising {len(originals.labels)} images", shown=progress)
    found = tool(originals, noise)
    say("attacking them", shown=progress)
    attacks = attackers(
        originals,
        theirs,
        latent,
        attacked,
        lambda given, seed: tool(given, jax.random.key(seed)),
        seeds[4:8],
        training=learning.recognisers,
        pairs=learning.pairs,
    )
    independent = feature_classifier.train_feature_classifier(
        *theirs, classes, learning.independent._replace(seed=seeds[8])
    )
    kinds = (
        _copies(originals.images, jax.random.key(seeds[9])),
        latent.images(np.random.default_rng(seeds[10]).normal(size=found.codes.shape), originals.labels),
        found.images,
    )
    by_name, labels = {attack.name: attack for attack in attacks}, originals.labels
    seen = by_name[BY_ATTACKED]
    recognised = {attack.name: attack_row(attack, kinds, labels) for attack in attacks}
    copies, fresh, anonymised = together(by_name[BY_CODES], seen, kinds, labels, search.target)
    recognised[BY_ALL] = (copies, fresh, anonymised, anonymised)
    outcome = Outcome(
        originals,
        found.images,
        Shares(*(own_cosine(seen.vectors(x, labels), seen.gallery) for x in kinds)),
        Shares(*(own_cosine(pixels(x, labels), pixels(*originals)) for x in kinds)),
        Shares(*(float(np.mean(independent.predict(x) == labels)) for x in kinds)),
        recognised,
    )
    restored, key = None, RestoringKey(found.codes, np.array(data.class_names)[labels])
    if key_file is not None:
        unseen = by_name[BY_UNSEEN]
        restored = rank_one(unseen.vectors(restore(key, latent), labels), unseen.gallery)
    settings = {"images": len(labels), "recogniser": embed_name, **search._asdict()}
    write_protection(out, statement(outcome, settings, restored))  # before any image
    if key_file is not None:
        write_key(key_file, key)
    write_images(out, found.images, labels, data.class_names)
    return outcome


def _check_found(embed: Recogniser, images: np.ndarray, name: str) -> None:
    """Raises ``UserError`` if the recogniser finds nothing in an image: such an image would be written as protected."""
    apply = jax.jit(embed)
    starts = range(0, len(images), embedder.CHUNK)
    try:
        vectors = np.concatenate([np.asarray(apply(images[i : i + embedder.CHUNK] / 255.0)) for i in starts])
    except Exception as error:  # whatever the user's function raises
        said = " ".join(str(error).split())[:200]
        raise UserError(f"--embed={name} fails on the images ({type(error).__name__}: {said})") from error
    found = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    if not found.all():
        raise UserError(
            f"--embed={name} finds nothing (zeros or NaN), such as no face, in {np.sum(~found):,} of {len(images):,} "
            "images; leave those out, or name a recogniser that reads them"
        )


def _shuffled(data: Dataset, seed: np.random.SeedSequence) -> Labelled:
    """All images in a random order: a folder is read one class after the other."""
    every = Labelled(data.train_images, data.train_labels).and_then(Labelled(data.test_images, data.test_labels))
    return every.rows(np.random.default_rng(seed).permutation(len(every.labels)))


def _by_class(chosen: Labelled) -> Labelled:
    """In the order of the classes, as ``write_images`` writes them."""
    return chosen.rows(np.argsort(chosen.labels, kind="stable"))


def _halves(pool: Labelled, n: int) -> tuple[Labelled, Labelled]:
    """Every other of the images that are not among the first ``n``, and the rest; of all if those are too few."""
    index = np.arange(n if len(pool.labels) - n >= LEAST else 0, len(pool.labels))
    return pool.rows(index[::2]), pool.rows(index[1::2])


def _copies(images: np.ndarray, key: jax.Array) -> np.ndarray:
    """Another copy of each image: it, after a small change."""
    return to_uint8(2 * np.asarray(jax.jit(changed)(key, images / np.float32(255))) - 1)
