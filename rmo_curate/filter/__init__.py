"""`rmo-curate filter`: read -> decide -> write.

- `settings`: what a user can ask, and the presets that ask it for them.
- `thresholds`: the arithmetic of cuts: budgets, the soft cut's probability, draws.
- `worth`: what labels are worth as a number of clean pairs, under each action.
- `slices`: pairs with the same value in a column: protected, and what they lose.
- `reviews`: a reviewer's decisions, read from a file.
- `budget`, `ambiguity`: how many noisy pairs there may be; which pairs are ambiguous.
- `decisions`: which pairs go, and why (noisy, ambiguous, too long, duplicate, decided by a reviewer), and how far
  labels are softened.
- `grounds`: what called a pair noisy: the rule, its threshold, the evidence that adds up.
- `caught`: what is caught by calling pairs noisy, told from swapped copies.
- `summary`: what these decisions come to, in numbers.
- `rule_comparison`: what each rule would drop, and what swapped copies say of it.
- `wording`: summary and comparison in sentences.
- `shards`: what was decided, as the table that the trainer reads.
- `card`: the dataset card.
- `command`, `rule_report`: the commands `filter` and `rules`.
"""
