"""Scoring as in a well-written script: padded batches of similar length, log-softmax, gather, sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

PaddedSequence = tuple[np.ndarray, int]  # token ids of prompt and response, and where the response starts


def batches_of_rows(sequences: Sequence[PaddedSequence], rows: int) -> Iterator[list[int]]:
    """Indices of sequences, shortest first, `rows` a batch."""
    order = _by_length(sequences)
    for at in range(0, len(order), rows):
        yield order[at : at + rows]


def batches_of_tokens(sequences: Sequence[PaddedSequence], tokens: int) -> Iterator[list[int]]:
    """Indices of sequences, shortest first, at most `tokens` a batch with its padding; a longer one stands alone."""
    batch: list[int] = []
    for k in _by_length(sequences):
        if batch and (len(batch) + 1) * len(sequences[k][0]) > tokens:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch


def _by_length(sequences: Sequence[PaddedSequence]) -> list[int]:
    return sorted(range(len(sequences)), key=lambda k: len(sequences[k][0]))


def padded_batch(sequences: Sequence[PaddedSequence]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, which of them are no padding, and which are of a response: [sequences, longest] each."""
    shape = len(sequences), max(len(tokens) for tokens, _ in sequences)
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    wanted = torch.zeros(shape, dtype=torch.bool)
    for row, (tokens, start) in enumerate(sequences):
        ids[row, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        mask[row, : len(tokens)] = 1
        wanted[row, start : len(tokens)] = True
    return ids, mask, wanted


def padded_logps(
    model: Any, sequences: Sequence[PaddedSequence], batches: Iterable[Sequence[int]], *, upcast: bool
) -> np.ndarray:
    """Log-probs of the responses, nats [len(sequences)].

    `upcast` makes the logits float32 before the log-softmax: exact sums, at twice the memory of bfloat16.
    """
    device = next(model.parameters()).device
    result = np.zeros(len(sequences))
    with torch.inference_mode():
        for batch in batches:
            ids, mask, wanted = (x.to(device) for x in padded_batch([sequences[k] for k in batch]))
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logits = logits.float() if upcast else logits
            logps = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
            result[list(batch)] = (logps * wanted[:, 1:]).sum(1).double().cpu().numpy()
    return result
