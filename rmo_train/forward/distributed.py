"""Data-parallel training: `torchrun` or `accelerate launch` start the processes, each computes its part of every batch.

A pack's loss is already scaled by the whole batch, so gradients are summed, not averaged, and the update does not
depend on the number of processes. Every process holds all weights, or (FSDP2) its share of every decoder layer.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from rmo_train.console.errors import UserError
from rmo_train.forward.logps import causal_parts

T = TypeVar("T")
BUCKET = 2**25  # numbers summed at once: 128 MiB


@dataclass(frozen=True)
class World:
    """The processes that train together; this one is `rank`. All of them must call each communicating method."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def agreed(self, value: T) -> T:
        """The main process's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, values: list[T]) -> list[T]:
        """The concatenated lists of all processes."""
        if self.size == 1:
            return values
        lists: list[Any] = [None] * self.size
        dist.all_gather_object(lists, values)
        return [value for values in lists for value in values]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sum every tensor (of one dtype) over the processes, in place."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([t.flatten() for t in bucket])
            dist.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))


ALONE = World()


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def joined() -> Iterator[World]:
    """The world of this process: alone, or with the others that a launcher started (WORLD_SIZE in the environment)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), size)
        dist.barrier()  # a process that ends while another still communicates may abort
    finally:
        dist.destroy_process_group()


def deal(tokens: Sequence[int] | np.ndarray, size: int) -> list[np.ndarray]:
    """Indices of a batch's pairs for each of `size` processes: largest first, each to the least loaded one."""
    shares: list[list[int]] = [[] for _ in range(size)]
    load = [(0, rank) for rank in range(size)]
    for i in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        done, rank = heapq.heappop(load)
        shares[rank].append(i)
        heapq.heappush(load, (done + int(tokens[i]), rank))
    return [np.array(sorted(share), dtype=np.int64) for share in shares]


# ---------------------------------------------------------------------------------------------------- FSDP2


def require_several(world: World) -> None:
    """UserError for a single process, which has nothing to shard over."""
    if world.size == 1:
        raise UserError(
            "--fsdp needs several processes, and this is a single one: start it with `torchrun --nproc-per-node N`, "
            "or leave out --fsdp"
        )


def shard(model: Any) -> None:
    """Shard the layers of a model's decoder over the processes, in place; trained weights become float32.

    Weights are gathered in the model's own dtype, layer by layer, while a layer is computed; gradients are summed in
    float32. Embeddings, the last norm and the head stay whole on every process.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    decoder, head = causal_parts(model)
    dtype = head.weight.dtype
    layers = next(m for m in decoder.children() if isinstance(m, torch.nn.ModuleList))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    inside = {p for layer in layers for p in layer.parameters()}
    for layer in layers:
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        fully_shard(layer, mp_policy=policy)
        sharded: Any = layer
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo supports no other
    whole = {p for p in decoder.parameters() if p not in inside and not is_sharded(p)}
    fully_shard(decoder, mp_policy=policy, ignored_params=whole)


def is_sharded(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def full(tensor: Any) -> Any:
    """The full tensor, on the CPU if it was sharded; every process takes part."""
    return tensor.full_tensor().cpu() if is_sharded(tensor) else tensor


def like(value: torch.Tensor, sharded: Any) -> Any:
    """`value`, sharded as `sharded` is; every process has all of it."""
    if not is_sharded(sharded):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(sharded.device)
    return distribute_tensor(value, sharded.device_mesh, sharded.placements, src_data_rank=None)


def full_weights(model: Any) -> dict[str, torch.Tensor] | None:
    """A sharded model's weights as one state dict on the CPU (for an adapter: the trained weights, and a head tied to
    the embeddings); None for an unsharded model.

    They have the dtype of computation. Every process takes part, but only the main one gets them, which saves a copy of
    the model on each of the others.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if not any(is_sharded(p) for p in model.parameters()):
        return None
    _, head = causal_parts(model)
    adapter = hasattr(model, "peft_config")
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=adapter)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    for name in weights:  # one by one, so that memory never holds all of them twice
        weights[name] = weights[name].to(head.weight.dtype)
    return weights
