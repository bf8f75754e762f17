"""One file per synthesis method, each a small NamedTuple of pure functions."""
