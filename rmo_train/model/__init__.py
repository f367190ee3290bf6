"""Models: found, identified, loaded, adapted, saved.

- `foreign`: what a model's folder may not do: pickled weights, its own code.
- `models`: resolves model names, and computes the hashes that identify a model.
- `embedded`: the model bundled in a Python package (smollm2-135m).
- `policy`: a causal language model loaded to score or to train, and saved.
- `lora`: faster LoRA layers.
- `adapters`: checks that an adapter belongs to its base.
- `merging`: `rmo-train merge`: an adapter and its base -> one model.
"""
