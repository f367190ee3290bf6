"""Models: found, identified, loaded, adapted, saved.

- `foreign`: what a folder that comes from a stranger may not do.
- `models`: which model a name means, and the hashes that identify it.
- `embedded`: the model that a Python package carries (smollm2-135m).
- `policy`: a causal language model loaded to score or to train, and saved.
- `lora`: LoRA layers in fewer passes.
- `adapters`: whether an adapter belongs to its base.
- `merging`: `rmo-train merge`: an adapter and its base -> one model.
"""
