"""`rmo-curate score`: the stages of a run, each done once, each resumable.

- `settings`: what a user can ask.
- `command`: the commands `score` and `proxy`: which stages, in which order.
- `job`: what is asked of `score`, resolved before anything is written.
- `stages`: what each stage of a run is made of, and which of them is left to do.
- `checks`: what can be wrong with what is asked, found before anything is computed.
- `length_limit`: how long a pair may be: by context and memory, once per folder.
- `run_folder`: the run folder as it is filled, and its status.
- `pairs_stage`: records -> RUN/pairs (rendered, tokenised) and RUN/rejects.
- `engines`: token ids in, log-probs out: transformers and vLLM.
- `crew`, `workers`: who computes parts: this process, or workers on Ray; `placement`: how many, and where.
- `shares`: `--shard`: processes that know nothing of each other.
- `scoring`: the scores of one checkpoint, part by part.
- `states`: RUN/states: hidden states, kept of the reference's pass; `buckets`: what is kept of each pair's.
- `logistic`: which of two answers is chosen, by a regression that is cross-fitted (few features: `rmo_train`'s solver).
- `categories`: kinds of prompt with preferences of their own, if they predict labels better.
- `probe`: a linear reward on hidden states, cross-fitted: the cheap proxy.
- `families`: what the proxies of one kind and split are called, and what was planned of them.
- `proxies`: trained proxies, cross-fitted and in-sample.
- `cost`: what scoring will cost, said before it starts.
- `inspection`: `inspect`: what data hold before they are scored.
- `conversion`: `inspect --to`: data of any form in one, with the rejects beside it.
"""
