"""Finds synthesis methods by name: each is a package in this directory that exports its ``METHOD``.

Packages of ``PARTS`` are no methods, but parts that several methods use.
"""

import difflib
import importlib
import pkgutil

import efsgd_jax.synthesizers as here
from efsgd_jax.errors import UserError
from efsgd_jax.synthesizers.base import Method

PARTS = ("reranking",)


def method_names() -> list[str]:
    """Names of all synthesis methods: the packages in this directory but for ``PARTS``, in alphabetical order."""
    found = {module.name for module in pkgutil.iter_modules(here.__path__) if module.ispkg}
    return sorted(found - set(PARTS))


def method_named(name: str) -> Method:
    """Returns the synthesis method registered under ``name``.

    Raises:
      UserError: no method has this name.

    Examples:
      >>> method_named("gaussian_mixture").defaults()["method"].components
      5
    """
    names = method_names()
    if name in names:
        method = importlib.import_module(f"{here.__name__}.{name}").METHOD
        assert isinstance(method, Method)
        return method
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"unknown method {name!r}; {hint}config.method.name is one of {', '.join(names)}")
