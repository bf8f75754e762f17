"""Evaluates the images of a finished run: computes scores, caches them, and releases single ones with noise."""
