"""The lean preference trainer: reads pair and shard tables, trains, evaluates, generates; knows nothing of curation.

Its rooms, each of which imports only from those above it:

- `console`: what both command lines share: errors with exit codes, progress, flags and recipes.
- `report`: results to lines for people: the words of every room.
- `store`: the contract on disk: schemas, manifests, atomic files, hashes of ids.
- `data`: pairs as arrays of token ids; chat templates.
- `model`: which model a name means; loading, adapters, saving.
- `forward`: token ids -> log-probs and hidden states, prompts shared.
- `objective`: losses, margin amplification, batch diversification: pure functions.
- `generation`: prompts -> answers, in the forms of benchmarks.
- `evaluation`: accuracy, paired comparison, win rates.
- `training`: settings, plan, loop, optimizer, checkpoints, and what a run leaves.
- `next_command`: which command comes after another.
- `cli`: the command line `rmo-train`.
"""

__version__ = "0.1.0"
