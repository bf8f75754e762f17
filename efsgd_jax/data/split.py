"""The train/test split for sources that come without one: a fixed, public permutation."""

import numpy as np

from efsgd_jax.errors import UserError

SPLIT_SEED = 20240229


def split_indices(num_examples: int, test_fraction: float, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Which examples are trained on and which are held out.

    The permutation depends on ``num_examples`` and a constant only, never on an image or a label: the split is not
    stratified, and exchanging or blanking one example moves no other example across it. The number of examples and
    their order are treated as public; removing an example and closing the gap would give another split.

    Returns:
      Two sorted int arrays, disjoint, together ``0..num_examples - 1``, the second of about
      ``test_fraction * num_examples`` entries and both at least one.

    Raises:
      UserError: fewer than two examples.
    """
    if num_examples < 2:
        raise UserError(f"{where}: {num_examples} image cannot be split into a training and a test part; add images")
    num_test = min(max(round(num_examples * test_fraction), 1), num_examples - 1)
    order = np.random.default_rng(SPLIT_SEED).permutation(num_examples)
    return np.sort(order[num_test:]), np.sort(order[:num_test])
