"""Pairs for the trainer.

- `ragged`: rows of different lengths in one flat array.
- `pairs`: a run or shard folder -> token ids, reference log-probs and a shard's columns.
- `rendering`: the chat template: a chat -> token ids, the end of the prompt, and flags.
"""
