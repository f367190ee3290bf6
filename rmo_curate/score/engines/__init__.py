"""Engines: token ids in, response log-probs out.

- `base`: what every engine answers.
- `choice`: which one `auto` means.
- `spec`: what an engine is made of, as sent to a worker.
- `transformers`: the trainer's own forward pass.
- `vllm`: the same from vLLM, checked against transformers; `vllm_process`: its process, started, asked, restarted,
  never left behind; `vllm_worker`: what runs in it; `vllm_memory`: what it will hold, summed before it starts.
"""
