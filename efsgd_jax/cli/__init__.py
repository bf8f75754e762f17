"""The command line: a module for each command of ``efsgd COMMAND`` (the same as ``python -m efsgd_jax COMMAND``).

Only the module of the command that runs is imported, so that training does not import evaluation and reports.
"""
