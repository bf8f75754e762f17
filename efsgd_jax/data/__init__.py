"""Image sources, each read into one frozen ``Dataset`` of uint8 images and integer labels."""

from efsgd_jax.data.dataset import Dataset, ImageSpec, to_uint8, to_unit_range
from efsgd_jax.data.load import SOURCES, load_dataset

__all__ = ["SOURCES", "Dataset", "ImageSpec", "load_dataset", "to_uint8", "to_unit_range"]
