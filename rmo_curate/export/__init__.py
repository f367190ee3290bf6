"""`rmo-curate export`: the kept pairs of a shard folder as another trainer reads them.

- `formats`: TRL, LLaMA-Factory, axolotl, OpenRLHF: a row for each.
- `command`: `rmo-curate export`: part by part, with a list of what could not be said.
"""
