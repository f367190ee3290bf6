"""`rmo-train run`, in the order of its steps.

- `settings`: the trainer's settings: the flags of `rmo-train run`, and their defaults.
- `plan`: what a run will do, derived before heavy work starts: steps, amplification, the batches of an epoch.
- `references`: reference log-probs of data that has none.
- `job`: builds and checks the inputs of the loop: the policy, its layout, its references, the step-0 check.
- `loop`: the training loop.
- `optimizer`: AdamW with float32 master weights; learning rates.
- `checkpoint`: training checkpoints, written atomically, from which an interrupted run resumes (`command` picks one).
- `saves`, `stopping`: when a checkpoint is saved: by steps, by minutes, on Ctrl-C.
- `throughput`: pairs/s, tokens/s, share of the matrix-product rate, peak memory.
- `hints`: detects common problems and names the flag to try.
- `trackers`: TensorBoard, Weights & Biases, Trackio.
- `record`: the lines of metrics.jsonl, the source of `log_history`, trackers and curves.
- `curves`: charts of the record.
- `card`: the model card.
- `command`: the commands `run` and `eval`: checks, builds, trains, writes.
"""
