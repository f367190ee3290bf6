"""The lean preference trainer: reads pair and shard tables, trains, evaluates.

A tour, in the order the data flows: `tables` (the files) and `pairs` (what is in them) -> `rendering` (chat to token
ids) -> `packing` and `logps` (one forward, prompts shared) -> `losses`, `amplify` and `diversify` -> `plan` -> `loop`
-> `checkpoint`; `evaluate` measures and `comparison` compares, `generation` answers prompts and `winrate` compares two
models' answers; `models` and `policy` find and load models, `config` holds the settings, `run` builds a job and `cli`
has the commands. It stands alone and knows nothing of curation.
"""

__version__ = "0.1.0"
