"""Token ids -> log-probs and hidden states: one forward pass, for scoring and training alike.

- `packing`: pairs -> packed rows that share the prompt.
- `attention`: who sees whom in a packed row: by segments, FlexAttention or a dense mask.
- `layout`: the attention and row length of one model and its data, by rule.
- `logps`: packed rows -> log-prob of each response.
- `head`: the language-model head as log-probs, without a [tokens x vocabulary] tensor.
- `states`: packed rows -> mean hidden states of each response.
- `distributed`: several processes: pairs dealt, gradients added up, layers sharded (FSDP2).
"""
