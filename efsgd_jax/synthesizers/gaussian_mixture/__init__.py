"""A Gaussian mixture in each class, fitted by a few full-batch Gaussian releases."""
