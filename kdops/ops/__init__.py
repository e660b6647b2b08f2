"""A room per op: read reference.py first."""
