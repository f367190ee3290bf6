"""Curation of preference data: reads it, scores it, says which labels to believe, filters, exports, audits.

Its rooms, each of which imports only from those above it:

- `read`: anything -> pairs, or rejects with a reason; pairs -> token ids.
- `runs`: a finished run folder and its margins; locks; folders that replace older ones.
- `score`: `score`, `proxy`, `status`, `inspect`: log-probs, hidden states and proxies of every pair.
- `evidence`: what speaks for or against a label, as one probability a pair; rules; swapped copies.
- `filter`: `filter` and `rules`: which pairs go, and why; shards.
- `export`: `export`: the kept pairs for other trainers.
- `audit`: `audit`: findings, numbers, the page.
- `cli`: the command line `rmo-curate`.
"""
