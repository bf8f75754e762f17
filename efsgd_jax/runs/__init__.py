"""A run on disk: training, sampling, scoring; the only part of the package that does input and output."""
