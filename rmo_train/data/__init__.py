"""Pairs for the trainer.

- `ragged`: rows of different lengths in one flat array.
- `pairs`: a run or shard folder -> token ids, reference log-probs and a shard's columns.
- `tool_calls`: messages that call functions, as tables hold them and as chat templates read them.
- `rendering`: the chat template: a chat -> token ids, where the prompt ends, and what is flagged.
"""
