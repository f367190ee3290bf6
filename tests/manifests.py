"""What a folder's manifest.json says, as plain JSON: what a reader of another program sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmo_train.store.files import read_json
from rmo_train.store.manifests import MANIFEST, Parts


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """None while the folder is not finished."""
    path = folder / MANIFEST
    return read_json(path) if path.is_file() else None


def parts_of(folder: Path, of: str | None = None) -> Parts:
    """The parts that a folder's manifest lists; `of`: those of a field of it."""
    content = manifest_of(folder) or {}
    return Parts.model_validate({"parts": (content[of] if of else content)["parts"]})
