"""Transformations, schedules and search spaces as plain data, for YAML, JSON and command lines, and back.

A call of a public name is a mapping with that name alone: {"adamw": {"learning_rate": 0.001}}. A call by place has a
list: {"chain": [...]}. Three words stand for what has no name of its own: {"function": name} for a function,
{"array": {"values": [...], "dtype": name}}, and {"dict": [[key, value], ...]} for a mapping whose keys are no strings,
or that would read as one of these. `...` is "...", an infinite number is "inf".
"""
