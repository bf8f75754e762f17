"""The programs, one file for each.

Here, and not in the modules that ``python -m`` names: importing ``efsgd_jax.evaluate``, the module, would put it in the
place of ``efsgd_jax.evaluate``, the function. And each apart: training needs no scores and no pages.
"""
