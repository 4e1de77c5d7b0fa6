"""Which hauslm is this? One place, at the bottom of the house, so that every room may say it."""

__version__ = "0.1.0"
