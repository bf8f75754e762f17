"""Versions of installed packages; a checkout on PYTHONPATH is not installed and has none."""

import importlib.metadata


def version_of(package: str) -> str:
    """The installed version, or ``"not installed"``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
