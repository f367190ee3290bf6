"""Curation of preference data: reads and scores pairs, estimates which labels are right, filters, exports, audits.

Its rooms, each of which imports only from those above it:

- `read`: data of any form -> pairs, or rejects with a reason; pairs -> token ids.
- `runs`: a finished run folder and its margins; locks; folders that replace older ones.
- `score`: `score`, `proxy`, `status`, `inspect`: log-probs, hidden states and proxies of every pair.
- `evidence`: evidence for or against each label, combined into one probability per pair; rules; swapped copies.
- `filter`: `filter` and `rules`: which pairs are dropped, and why; shards.
- `export`: `export`: the kept pairs in the formats of other trainers.
- `audit`: `audit`: findings, numbers, the page.
- `next_command`: which command to run after another.
- `cli`: the command line `rmo-curate`.
- `api`: the same from Python; its names are those of `rmo_curate` itself.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["ProcessingError", "RmoError", "Run", "Shards", "Stopped", "UserError", "audit", "open_run", "score"]

if TYPE_CHECKING:
    from rmo_curate.api import ProcessingError, RmoError, Run, Shards, Stopped, UserError, audit, open_run, score
else:

    def _of_api(name: str) -> property:
        """The API's `name`, even after the import of the room of the same name, which would replace it here."""
        return property(lambda package: getattr(import_module("rmo_curate.api"), name), lambda package, room: None)

    class _Package(ModuleType):
        """Loads a name of the API on first use, because command lines import this package before anything else."""

        score, audit = _of_api("score"), _of_api("audit")

        def __getattr__(self, name: str) -> Any:
            if name in __all__:
                return getattr(import_module("rmo_curate.api"), name)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        def __dir__(self) -> list[str]:
            return sorted({*globals(), *__all__})

    sys.modules[__name__].__class__ = _Package
