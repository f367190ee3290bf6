"""Curation of preference data: reads it, scores it, says which labels to believe, filters, exports, audits.

Its rooms, each of which imports only from those above it:

- `read`: anything -> pairs, or rejects with a reason; pairs -> token ids.
- `runs`: a finished run folder and its margins; locks; folders that replace older ones.
- `score`: `score`, `proxy`, `status`, `inspect`: log-probs, hidden states and proxies of every pair.
- `evidence`: what speaks for or against a label, as one probability a pair; rules; swapped copies.
- `filter`: `filter` and `rules`: which pairs go, and why; shards.
- `export`: `export`: the kept pairs for other trainers.
- `audit`: `audit`: findings, numbers, the page.
- `next_command`: which command comes after another.
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
        """What `name` means though a room has that name too, which its import would bind here."""
        return property(lambda package: getattr(import_module("rmo_curate.api"), name), lambda package, room: None)

    class _Package(ModuleType):
        """Loads a name of the API when it is asked for: command lines import this package before all else."""

        score, audit = _of_api("score"), _of_api("audit")

        def __getattr__(self, name: str) -> Any:
            if name in __all__:
                return getattr(import_module("rmo_curate.api"), name)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        def __dir__(self) -> list[str]:
            return sorted({*globals(), *__all__})

    sys.modules[__name__].__class__ = _Package
