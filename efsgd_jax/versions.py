"""Versions of installed packages; a checkout on PYTHONPATH is not installed and has no version."""

import importlib.metadata


def version_of(package: str) -> str:
    """The installed version of a package, or ``"not installed"``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
