"""`rmo-train generate`: prompts of a file -> answers.

- `prompts`: the prompts of any file, run or shard folder.
- `answer_forms`: how AlpacaEval, Arena-Hard, MT-Bench and IFEval keep prompts and answers.
- `decoding`: batched answers through transformers, the same in a batch of any size.
- `decoding_vllm`: the same requests through vLLM.
- `command`: `rmo-train generate`.
"""
