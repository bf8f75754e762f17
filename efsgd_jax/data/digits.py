"""The source ``digits``: scikit-learn's bundled 8x8 digits, 1,797 real images without a download."""

from efsgd_jax.data.raw import RawDataset

CLASS_NAMES = tuple(str(i) for i in range(10))


def read_digits() -> RawDataset:
    """Reads all 1,797 digits, 8x8 grey images with values in 0..16; they have no test part."""
    # Imported here, because scikit-learn takes a second to import and the other data sources do not need it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return RawDataset(images.reshape(-1, 8, 8), labels, "digits", class_names=CLASS_NAMES, value_range=(0.0, 16.0))
