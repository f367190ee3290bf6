"""The contract between the stages, on disk.

- `tables`: schemas, manifests, atomic writes, verified reads; `PartWriter`, by which a killed stage resumes.
- `id_hash`: a 64-bit hash of every id at once: draws, joins, repeats.
"""
