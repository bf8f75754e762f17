"""A run on disk: its directory, its owner, its release, drawing from it and exporting it."""
