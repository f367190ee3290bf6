"""The on-disk contract between the stages.

- `files`: hashes, JSON, and atomic writes.
- `manifests`: manifest.json, one type per kind of folder: run, pairs, scores, shards, references, trained model.
- `tables`: schemas and verified reads; `PartWriter`, with which an interrupted stage resumes.
- `id_hash`: vectorised 64-bit hashes of ids, for random draws, joins and duplicates.
"""
