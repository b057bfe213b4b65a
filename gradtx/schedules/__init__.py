"""Schedules: the count of updates made -> a number. One family per file. May import `value` and `clock`."""
