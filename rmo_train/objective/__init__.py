"""The objective and the batches: pure functions of arrays.

- `losses`: preference losses in the registry `LOSSES`; CONTRIBUTING.md says how to add one.
- `amplify`: pairwise margin amplification.
- `diversify`: batch margin diversification.
"""
