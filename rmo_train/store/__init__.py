"""The contract between the stages, on disk.

- `files`: hashes, JSON, and writes that leave a whole file or none.
- `manifests`: what manifest.json says, a type a kind of folder: run, pairs, scores, shards, references, trained model.
- `tables`: schemas and verified reads; `PartWriter`, by which a killed stage resumes.
- `id_hash`: a 64-bit hash of every id at once: draws, joins, repeats.
"""
