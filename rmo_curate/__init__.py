"""Curation of preference data: reads it, scores it, filters it, audits it, writes shards.

A tour, in the order the data flows: `sources` (any format to pairs and rejects) -> `scoring` and `engines` (log-probs
under a chain of checkpoints) -> `proxies` (cross-fitted) -> `margins` and `rules` (suspicion) -> `filtering` (decisions
and shards) -> `audit` (the report). `cli` holds the commands.
"""
