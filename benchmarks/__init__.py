"""Measured claims. Each script writes JSON to results/, from which docs/results.md and docs/results/ are made.

`python docs/generate.py` fills their tables.

- `chain`: runs a recipe and stores its results.
- `diversify`: batch margin diversification relative to its upper bound.
- `gpu_day`: all GPU measurements, the most important first (`make bench-gpu`).
- `gpu`, `gpu_train`: speed of scoring and training on a GPU, compared with padded batches; `gpu_trl`: with TRL.
- `gpu_checks`: correctness of attention paths, training and commands on a GPU.
- `score`: scoring, compared with padded transformers, TRL and vLLM (grid: plan.yaml).
- `workers`: scoring by one process and by workers, also on a busy machine.
- `simulate_workers`: 64 simulated workers on Ray: how many parts a second the driver can hand out.
- `train`: training, compared with TRL and a padded loop, step by step; `trl_trainer`: TRL's trainer as such a peer.
- `growth`: training on 1,000 to 100,000 pairs.
- `paths`: cost of the attention paths at different lengths.
- `forward`: profile of scoring and training.
- `coverage`: coverage of intervals with few prompts.
- `detect`, `cells`: detection of flipped labels by the posterior and every rule; the grid's cells.
- `flips`: which labels are flipped: at random, or for a reason.
- `detection`, `detect_table`, `detect_values`: metrics of detection, and their tables.
- `claims`, `result_tables` (with `alignment_tables`, `robustness_tables`): every target with its measurement; the
  tables of all other results. `figures`: results as cells and rows.
- `categories`: what a column with the kind of prompt adds to the evidence.
- `cut`: what the filter's default and its cut cost and bring, by number of pairs and share of flipped labels.
- `probes`: other heads on the probe's states: classifiers of answers, gated tokens.
- `baselines`, `mixture`: published statistics as baselines for rules; two mirrored normals, fitted by EM.
- `data`, `turns`: preference files as tokens and messages; methods in processes that take turns.
- `align`: whether curation makes a better model: flipped labels, arms of DPO and SimPO, win rates.
- `constraints`, `constraint_prompts`, `sampling`: its constraints and checkers, its prompts, its answers.
- `align_tasks`, `align_data`, `align_cells`, `align_table`: its stages, its pairs, a cell, its tables.
- `schedule`: runs tasks in several processes within a time limit.
- `kill`: kill -9 at random moments, compared with uninterrupted runs.
- `faults`: every command with full disks, kills, wrong clocks and two at once; `fault_chain` is a trial, `fault_server`
  runs it under the shim `faults.c`.
- `fuzz`: broken data, damaged files, strange settings; `fuzz_checks` has the promises, `fuzz_files` and
  `fuzz_runs` the cases.
- `large`: time of the audit on an answer of 20 MB, memory of commands on 1,000 answers of 1 MB.
- `stream`: time and memory of reading and rendering a million pairs.
- `filter`: time and memory of decisions on millions of scored pairs.
- `audit`: the audit of 100,000 and of a million pairs without a model.
- `environment`, `padded`: the machine of a measurement; the padded batches that scoring is compared with.
- `evidence`: time and memory of all evidence on a million pairs.
"""
