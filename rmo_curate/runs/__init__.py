"""Run folders, and what every stage asks of a folder.

- `run`: a finished run folder, read: pairs, checkpoints, log-probs joined by id.
- `manifests`: those of RUN/rejects, RUN/states, RUN/proxies and exports; the others are in `rmo_train.store`.
- `margins`: how much more likely a checkpoint finds the chosen response.
- `run_lock`: one command at a time fills a run folder.
- `places`: where a folder goes that was given no place.
- `replacing`: a folder made beside the one that it replaces.
"""
