"""Where a folder goes that was given no place: into the cache, named after what it is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmo_train.console.progress import say
from rmo_train.store.files import canonical_json, sha256_text


def place_of(out: str | os.PathLike[str] | None, kind: str, made_of: Callable[[], Any]) -> Path:
    """`out`; where that is None, a folder of the cache (RMO_CACHE, by default ~/.cache/rmo), and a line says which.

    made_of: gives JSON values. The same ones give the same folder, so what is there already is not made again.
    """
    from rmo_train.model.embedded import cache_folder

    if out is not None:
        return Path(out)
    folder = cache_folder() / kind / sha256_text(canonical_json(made_of()))[:16]
    say(f"{kind}: {folder}")
    return folder
