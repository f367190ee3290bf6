"""What is optimised, and in which batches: pure functions of arrays.

- `losses`: preference losses, in a registry.
- `amplify`: pairwise margin amplification.
- `diversify`: batch margin diversification.
"""
