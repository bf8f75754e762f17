"""Scores of a finished run: computed, cached, and released with noise."""
