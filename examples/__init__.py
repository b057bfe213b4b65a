"""Programs that use gradtx. Each runs as `python -m examples.<name>`."""
