"""`rmo-train generate`: a file of prompts -> answers.

- `prompts`: reads prompts from any file, run or shard folder.
- `answer_forms`: how AlpacaEval, Arena-Hard, MT-Bench and IFEval store prompts and answers.
- `decoding`: batched answers through transformers; an answer does not depend on the batch size.
- `decoding_vllm`: the same requests through vLLM.
- `command`: `rmo-train generate`.
"""
