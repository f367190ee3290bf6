"""Evaluation of a model, and comparison of two.

- `metrics`: accuracy of margins, plain and length-matched; the interval of a difference between two models on the
  same pairs; McNemar: pure functions.
- `intervals`: intervals of accuracies and differences that are not overconfident with few prompts.
- `logistic`: logistic regression with few features, for evidence and the length-controlled win rate.
- `result`: the results of an evaluation, and their file.
- `evaluate`: held-out accuracy against the reference columns.
- `comparison`: `rmo-train compare`: two models on the same pairs, by `metrics`.
- `winrate`: `rmo-train winrate`: how often one model's answers beat another's.
"""
