"""Runs on disk: training one, its directory and lock, its privacy report and release, sampling and export."""
