"""The default location of an output folder: in the cache, named by a hash of its inputs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmo_train.console.progress import say
from rmo_train.store.files import canonical_json, sha256_text


def place_of(out: str | os.PathLike[str] | None, kind: str, made_of: Callable[[], Any]) -> Path:
    """`out`; if that is None, a folder in the cache (RMO_CACHE, by default ~/.cache/rmo), whose path is printed.

    made_of: returns JSON values that identify the inputs. Equal inputs give the same folder, so work is reused.
    """
    from rmo_train.model.embedded import cache_folder

    if out is not None:
        return Path(out)
    folder = cache_folder() / kind / sha256_text(canonical_json(made_of()))[:16]
    say(f"{kind}: {folder}")
    return folder
