"""How good a model is, and whether another one is better.

- `metrics`: accuracy of margins, plain and length-matched; the interval of a difference between two models on the
  same pairs; McNemar: pure functions.
- `intervals`: intervals of accuracies and differences that few prompts do not make too sure of themselves.
- `logistic`: logistic regression of few features: what evidence and the length-controlled win rate are fitted by.
- `result`: the figures of an evaluation, and their file.
- `evaluate`: held-out accuracy against the reference columns.
- `comparison`: `rmo-train compare`: two models on the same pairs, by `metrics`.
- `winrate`: `rmo-train winrate`: how often one model's answers beat another's.
"""
