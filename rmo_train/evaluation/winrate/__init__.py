"""`rmo-train winrate`: how often one model's answers beat another's to the same prompts.

`answers` reads two files of answers and pairs them by prompt. `checkers` verifies constraints in the prompts by
programs; `judge` asks a model over HTTP (`endpoint`) which answer is better, and stores its replies (`judgements`).
`length_control` corrects a judge's verdicts for length. `results` has the rates with their intervals, `command` runs it
all, `needs` imports the libraries of the extra.
"""
