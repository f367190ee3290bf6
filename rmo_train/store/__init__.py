"""The contract between the stages, on disk.

- `files`: hashes, JSON, and writes that leave a whole file or none.
- `manifests`: what manifest.json says, a type a kind of folder: run, pairs, scores, shards, references, trained model.
- `tables`: schemas and verified reads; `PartWriter`, by which a killed stage resumes.
- `folder_lock`: one command at a time fills a folder.
- `replacing`: a folder made beside the one that it replaces.
- `id_hash`: a 64-bit hash of every id at once: draws, joins, repeats.
"""
