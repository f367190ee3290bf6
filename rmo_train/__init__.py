"""The lean preference trainer: reads pair and shard tables, trains, evaluates, generates. Independent of curation.

Its rooms, each of which imports only from those above it:

- `console`: shared by both command lines: errors with exit codes, progress, flags and recipes.
- `report`: results -> lines for people; the messages of all rooms.
- `store`: the contract on disk: schemas, manifests, atomic files, hashes of ids.
- `data`: pairs as arrays of token ids; chat templates.
- `model`: which model a name means; loading, adapters, saving.
- `forward`: token ids -> log-probs and hidden states, prompts shared.
- `objective`: losses, margin amplification, batch diversification: pure functions.
- `generation`: prompts -> answers, in the forms of benchmarks.
- `evaluation`: accuracy, paired comparison, win rates.
- `training`: settings, plan, loop, optimizer, checkpoints, and the files of a run.
- `trl`: TRL's `DPOTrainer` with the same objective and order, on data exported for TRL.
- `next_command`: which command to run after another.
- `cli`: the command line `rmo-train`.
- `api`: the same from Python; its names are those of `rmo_train` itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ProcessingError", "RmoError", "UserError", "compare", "evaluate", "train"]

if TYPE_CHECKING:
    from rmo_train.api import ProcessingError, RmoError, UserError, compare, evaluate, train
else:

    def __getattr__(name: str) -> Any:
        """A name of the API, loaded on first use, because command lines import this package before anything else."""
        if name in __all__:
            return getattr(import_module("rmo_train.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
