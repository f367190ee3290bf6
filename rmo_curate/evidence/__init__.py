"""What speaks for or against a label, as one calibrated probability a pair.

In the order in which data pass through:

- `texts`: pairs -> what their texts give: the style of each answer, and which answers and prompts are the same.
- `columns`: what columns of the user's own say: which model wrote an answer, what kind of prompt a pair is of.
- `style`: which styles win, in which kind of prompt, and what dropping pairs does to length and style.
- `answers`: what the other pairs of a prompt say of the same two answers.
- `generators`: how strong the model that wrote an answer is.
- `label_noise`: the noise rate, that is the share of labels that are wrong, with its interval; and what that makes of
  a sum of evidence.
- `posterior`: all of it weighed, and turned into P(the label is right).
- `gather`: the posterior of a run folder, or of data without any model.
- `contributions`: what each source says of one label: why it is believed or doubted.
- `expected`: what to expect at a number of pairs: a measured learning curve.
- `rules`: rules of suspicion, of the evidence and of single margins.
- `swapped_copies`: what a rule finds on the data, known from swapped copies of them.
- `lengths`: whether lengths mislead what is summed over tokens.
- `wording`: all of that in sentences.
- `judged`: the pairs as a frame with all of that.

Every source of evidence changes its sign when a pair's answers are exchanged, exactly: so a swapped copy of a pair is
judged without a forward pass (`rmo_curate.evidence.swapped_copies`).
"""
