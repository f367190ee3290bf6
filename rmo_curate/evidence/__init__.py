"""Evidence for and against a label, combined into one calibrated probability per pair.

In the order of the data flow:

- `texts`: pairs -> the style of each answer, and which answers and prompts are equal.
- `columns`: the user's columns: which model wrote an answer, and the kind of prompt.
- `style`: which styles win, in which kind of prompt, and what dropping pairs does to length and style.
- `prompt_words`: the same by words of the prompt, where no column names its kind.
- `answers`: results of the same two answers in other pairs of the prompt.
- `generators`: the strength of the model that wrote an answer.
- `label_noise`: the noise rate (the share of wrong labels) with its interval; turns summed evidence into log-odds.
- `posterior`: all evidence, weighted and turned into P(the label is right).
- `gather`: the posterior of a run folder, or of data that no model has scored.
- `contributions`: what each source says about one label.
- `expected`: expected detection by number of pairs: a measured learning curve.
- `rules`: suspicion rules, based on the evidence or on single margins.
- `swapped_copies`: recall and precision of a rule, estimated from swapped copies of the data.
- `lengths`: whether length misleads sums over tokens.
- `wording`: all of this in sentences.
- `judged`: the pairs as a frame with all of this.

Every source of evidence changes its sign exactly when a pair's answers are exchanged. A swapped copy of a pair can
therefore be judged without a forward pass (`rmo_curate.evidence.swapped_copies`).
"""
