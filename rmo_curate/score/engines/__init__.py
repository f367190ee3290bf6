"""Engines: token ids in, response log-probs out.

- `base`: the interface of every engine.
- `choice`: which engine `auto` selects.
- `spec`: the settings of an engine, as sent to a worker.
- `transformers`: the trainer's own forward pass.
- `vllm`: the same by vLLM, verified against transformers. `vllm_process` starts, queries, restarts and ends its
    process; `vllm_worker` runs in that process; `vllm_memory` estimates its memory before it starts.
"""
