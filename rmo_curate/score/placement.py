"""How many workers there are, and which part of the machines each of them has for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rmo_train.console.errors import UserError
from rmo_train.console.wording import counted


@dataclass(frozen=True)
class Placement:
    """How many workers there will be, and what each of them has for itself: GPUs, or a core."""

    workers: int
    gpus_each: int  # 0: none
    gpus: int  # of all machines
    cores: int

    @classmethod
    def of(
        cls,
        machines: Sequence[Mapping[str, float]],
        asked: int | Literal["auto"],
        gpus_each: int,
        *,
        one_machine: bool,
    ) -> Placement:
        """machines: what each has, as Ray tells it (GPU, CPU). gpus_each: that one model is split over, on one machine.

        More workers than GPUs get a core each and no GPU; on a cluster they may be more than it has yet.
        """
        gpus, cores = (int(sum(machine.get(name, 0) for machine in machines)) for name in ("GPU", "CPU"))
        room = sum(int(machine.get("GPU", 0)) // gpus_each for machine in machines)
        number = (room or (1 if gpus_each > 1 else max(1, cores))) if asked == "auto" else asked
        if gpus_each > 1 and not 0 < number <= room:
            most = max((int(machine.get("GPU", 0)) for machine in machines), default=0)
            raise UserError(
                f"--tensor-parallel-size {gpus_each}: {room} of {counted(number, 'worker')} would find {gpus_each} "
                f"GPUs on one machine (a machine has at most {counted(most, 'GPU')}); give fewer GPUs, or fewer "
                "--workers"
            )
        if one_machine and number > max(room, cores):
            raise UserError(
                f"--workers {number}: this machine has only {counted(cores, 'core')}; give at most that many"
            )
        return cls(number, gpus_each if 0 < number <= room else 0, gpus, cores)

    @property
    def needs(self) -> dict[str, float]:
        """What Ray finds a place for with each worker, as options of an actor.

        A worker on a GPU asks for no core: where there are fewer cores than GPUs, it would wait for one for ever.
        """
        return {"num_cpus": 0 if self.gpus_each else 1, "num_gpus": self.gpus_each}

    @property
    def line(self) -> str:
        each = counted(self.gpus_each, "GPU") if self.gpus_each else "one core"
        return (
            f"{counted(self.workers, 'Ray worker')}, {each} each, of {counted(self.gpus, 'GPU')} and "
            f"{counted(self.cores, 'core')}"
        )
