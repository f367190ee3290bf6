"""Measured claims: each script writes JSON under results/, from which docs/results.md and docs/results/ are made.

`python docs/generate.py` fills their tables.

- `chain`: a whole recipe, and its numbers kept.
- `diversify`: batch margin diversification against its bound.
- `gpu_day`: all that is measured on a GPU, the most important first (`make bench-gpu`).
- `gpu`, `gpu_train`: scoring and training there: share of the matrix-product rate, beside padded batches.
- `gpu_checks`: whether paths, training and the commands are right there.
- `score`: scoring beside padded transformers, TRL and vLLM (grid: plan.yaml).
- `workers`: scoring by one process and by workers, beside a busy neighbour too.
- `train`: training beside TRL and a padded loop, step by step.
- `growth`: training on 1,000 to 100,000 pairs.
- `paths`: what the attention paths cost at different lengths.
- `forward`: where the time of scoring and of training goes.
- `coverage`: how often intervals of few prompts hold the truth.
- `detect`, `cells`: how well the posterior and every rule find flipped labels; the grid's cells.
- `flips`: which labels are flipped: at random, or for a reason.
- `detection`, `detect_table`, `detect_values`: its figures, and as tables.
- `claims`, `result_tables`: every target beside what was measured; the tables of all other results.
- `probes`: other heads on the probe's states: classifiers of answers, gated tokens.
- `baselines`, `mixture`: published statistics that rules are compared with; two mirrored normals, fitted by EM.
- `data`, `turns`: preference files as tokens and messages; methods in processes that take turns.
- `align`: does curation make a better model: flipped labels, arms of DPO and SimPO, win rates.
- `constraints`, `constraint_prompts`, `sampling`: what its prompts ask, its checkers, the answers to them.
- `align_tasks`, `align_data`, `align_cells`, `align_table`: its stages, its pairs, a cell, its tables.
- `schedule`: tasks over processes, as many as fit into a time.
- `kill`: kill -9 at random moments, against the undisturbed folders.
- `stream`: reading and rendering a million pairs: seconds and memory.
- `large`: seconds of the audit on an answer of 20 MB, memory of commands on 1,000 answers of 1 MB.
- `filter`: decisions on millions of scored pairs: seconds and memory.
- `audit`: the audit of 100,000 pairs without a model.
- `environment`, `padded`: what a measurement ran on; the padded batches that scoring is measured against.
- `evidence`: all evidence on a million pairs: seconds and memory.
"""
