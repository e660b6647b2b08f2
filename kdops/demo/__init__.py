"""`python -m kdops demo`: distil a small network by several methods on real images."""

from kdops.demo.course import main

__all__ = ["main"]
