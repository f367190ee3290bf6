"""What is optimised, and in which batches: pure functions of arrays.

- `losses`: preference losses; to add one: `LOSSES`, and CONTRIBUTING.md.
- `amplify`: pairwise margin amplification.
- `diversify`: batch margin diversification.
"""
