"""What a model's folder may do beside giving numbers: nothing, unless the user allows it.

Two flags of every command that loads a model. They stand on the command line alone and in no recipe: a recipe may come
from a stranger, as the model may. What is allowed holds for this process while the command runs (`granted`); processes
that it starts are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass

from rmo_train.console.settings import Settings, from_recipe


@dataclass(frozen=True)
class Trust:
    """What models may do."""

    allow_pickle: bool = False  # hold their weights in pickle files
    trust_remote_code: bool = False  # bring Python code that is run


FLAGS = ("--allow-pickle", "--trust-remote-code")

_granted = Trust()


def granted() -> Trust:
    """What this process allows now."""
    return _granted


def grant(trust: Trust) -> None:
    """Allow this from now on: in a process that another one started for its work."""
    global _granted
    _granted = trust


@contextmanager
def granting(trust: Trust) -> Iterator[None]:
    """Allow this inside `with`."""
    before = granted()
    grant(trust)
    try:
        yield
    finally:
        grant(before)


def flags_given() -> list[str]:
    """The flags that allow what is allowed now: for a command that is proposed after this one."""
    return [flag for flag, given in zip(FLAGS, astuple(_granted), strict=True) if given]


class TrustSettings(Settings):
    """What the models of a command may do."""

    allow_pickle: bool = from_recipe(
        default=False,
        description="Also load weights from pickle files (*.bin), which can contain code; by default, only safetensors",
    )
    trust_remote_code: bool = from_recipe(
        default=False, description="Run the Python code that comes with a model; by default, none is run"
    )

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with granting(Trust(self.allow_pickle, self.trust_remote_code)):
            yield
