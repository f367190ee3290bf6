"""Run folders, and what all stages need of a folder.

- `run`: reads a finished run folder: pairs, checkpoints, log-probs joined by id.
- `manifests`: of RUN/rejects, RUN/states, RUN/proxies and exports; the others are in `rmo_train.store`.
- `columns`: the data's column with the kind of prompt.
- `margins`: log-prob of the chosen response minus that of the rejected one.
- `run_lock`: only one command at a time writes to a run folder.
- `places`: default locations of output folders.
- `replacing`: builds a folder beside the one that it replaces.
"""
