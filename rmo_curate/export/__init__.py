"""`rmo-curate export`: the kept pairs of a shard folder in the format of another trainer.

- `formats`: rows for TRL, LLaMA-Factory, axolotl and OpenRLHF.
- `command`: `rmo-curate export`: writes part by part, and lists what a format cannot hold.
"""
