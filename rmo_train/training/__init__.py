"""`rmo-train run`, in the order in which it happens.

- `settings`: the trainer's settings: the flags of `rmo-train run`, and their defaults.
- `plan`: what a run will do, derived before anything heavy starts: steps, amplification, the batches of an epoch.
- `references`: reference log-probs of data that has none.
- `job`: what the loop is given, built and checked: the policy, its layout, its references, the step-0 check.
- `loop`: the training loop.
- `optimizer`: AdamW with float32 master weights; learning rates.
- `checkpoint`: training checkpoints, written whole or not at all: what a killed run resumes from (`command` picks it).
- `saves`, `stopping`: when a checkpoint is saved: by steps, by minutes, at Ctrl-C.
- `throughput`: pairs/s, tokens/s, share of the matrix-product rate, peak memory.
- `hints`: what goes wrong, and the flag to try.
- `trackers`: TensorBoard and its like.
- `record`: the lines of metrics.jsonl, of which `log_history`, trackers and curves are views.
- `curves`: the picture of the record.
- `card`: the model card.
- `command`: the commands `run` and `eval`: checks, builds, trains, writes.
"""
