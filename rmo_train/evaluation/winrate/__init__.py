"""`rmo-train winrate`: how often one model's answers beat another's to the same prompts.

A tour: `answers` reads two files of answers and pairs them by prompt. `checkers` asks programs whether constraints in
the prompts are met; `judge` asks a model which answer is better, over HTTP (`endpoint`), and keeps what it said
(`judgements`). `length_control` takes length's help out of a judge's verdicts. `results` holds the rates with their
intervals, `command` puts a run together, `needs` names what the extra installs.
"""
