"""Data of the Hugging Face hub: `hf:owner/name[:split]` -> the Arrow files that `datasets` keeps of it in its cache."""

from __future__ import annotations

import re
from pathlib import Path

from rmo_train.console.errors import UserError, nearest

HUB = "hf:"
SCRIPT = re.compile("scripts? (are|is)|trust_remote_code|custom code")  # in what `datasets` says of them
PREFERRED = ("train", "train_prefs")  # the split that is meant when none is given


def hub_files(given: str) -> list[tuple[str, Path]]:
    """(name for messages, file) of a split's files; the data are fetched once. A UserError says why there are none."""
    name, _, wanted = given.removeprefix(HUB).partition(":")
    if not name:
        raise UserError(f"{given}: no data set name; expected hf:owner/name or hf:owner/name:split")
    import datasets

    # Later versions than 3 know no scripts; those would run one, or ask on the terminal, whatever the environment says.
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
    try:
        splits = datasets.load_dataset(name)
    except Exception as e:  # a library of many layers, each with errors of its own; all of them are about this name
        reason = " ".join(str(e).split()) or type(e).__name__
        if SCRIPT.search(reason):
            raise UserError(
                f"{given}: the data set is made by its own Python script, which rmo does not run ({reason}); for most "
                "data sets, the hub has a copy as Parquet files (branch refs/convert/parquet): download that and give "
                "the folder"
            ) from e
        raise UserError(
            f"{given}: cannot be loaded ({reason}); check the name and the connection to the Hub (a private data set "
            "needs HF_TOKEN), or download its files another way and give their folder"
        ) from e
    split = _split(given, wanted, [str(s) for s in splits])
    paths = [Path(f["filename"]) for f in splits[split].cache_files]
    place = f"{HUB}{name}:{split}"
    return [(place if len(paths) == 1 else f"{place}/{p.name}", p) for p in paths]


def _split(given: str, wanted: str, splits: list[str]) -> str:
    if wanted in splits:
        return wanted
    if wanted:
        raise UserError(f"{given}: no split {wanted!r}; the splits are {', '.join(splits)}{nearest(wanted, splits)}")
    if len(splits) == 1:
        return splits[0]
    for name in PREFERRED:
        if name in splits:
            return name
    raise UserError(f"{given}: has several splits; give {' or '.join(f'{given}:{s}' for s in splits)}")
