"""Token ids -> log-probs and hidden states: one forward pass, for scoring and training alike.

- `packing`: pairs -> packed rows that share the prompt.
- `attention`: the attention paths: segments, FlexAttention, a dense mask, plain rows.
- `layout`: chooses the attention path and the row length, by rule.
- `memory`: memory per row, estimated before a model is loaded.
- `logps`: packed rows -> log-prob of each response.
- `head`: the language-model head as log-probs, without a [tokens x vocabulary] tensor.
- `states`: packed rows -> mean hidden states of each response.
- `distributed`: several processes: pairs distributed, gradients summed, layers sharded (FSDP2).
"""
