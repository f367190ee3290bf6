"""The on-disk contract between the stages.

- `files`: hashes, JSON, and atomic writes.
- `manifests`: manifest.json, one type per kind of folder: run, pairs, scores, shards, references, trained model.
- `tables`: schemas and verified reads; `PartWriter`, with which an interrupted stage resumes.
- `folder_lock`: only one command at a time writes to a folder.
- `replacing`: a folder that is made beside the one that it replaces.
- `id_hash`: vectorised 64-bit hashes of ids, for random draws, joins and duplicates.
"""
