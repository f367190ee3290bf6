"""The contract between the stages, on disk.

- `tables`: schemas, manifests, parts and their journal, atomic writes, verified reads.
- `id_hash`: a 64-bit hash of every id at once: draws, joins, repeats.
"""
