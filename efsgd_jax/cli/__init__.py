"""The command line: one file for each command of ``efsgd COMMAND``, the same as ``python -m efsgd_jax COMMAND``.

Each is imported by itself: training needs no scores and no pages.
"""
