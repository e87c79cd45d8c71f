"""setk: speech enhancement for constrained devices, as small Unix commands."""

__version__ = "0.2.0"
