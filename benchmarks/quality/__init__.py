"""Which optimizer is better: the same budget of tuning for each, then runs whose seeds are paired.

python -m benchmarks.quality tune      trials, into runs/quality.jsonl; killed and started again, it goes on
python -m benchmarks.quality run       the best numbers of each from other seeds, and the time of its step
python -m benchmarks.quality shorten   the fewest steps in which each gets as low as AdamW in all of them
python -m benchmarks.quality report    tables, sentences, a picture; into docs/quality.md and .png with --write
python -m benchmarks.quality.storage   what AdamW loses when state and weights are stored in fewer bytes
"""
