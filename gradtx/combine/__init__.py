"""Transformations made of transformations. May import `core` and what lies below it."""
