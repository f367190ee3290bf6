"""The filter, from a run folder to shards: read -> decide -> write.

`decisions` says which pairs go, `shards` writes what stays; this module is what `rmo-curate filter` calls.
"""

from __future__ import annotations

from pathlib import Path

from rmo_curate.filter.decisions import Decisions, decide
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.filter.shards import find_shards, write_shards
from rmo_curate.runs.run import open_run
from rmo_train.console.errors import Stopped

__all__ = ["Decisions", "FilterSettings", "decide", "run_filter", "write_shards"]


def run_filter(
    run_folder: Path, out: Path, settings: FilterSettings, *, overwrite: bool = False, dry_run: bool = False
) -> list[str]:
    """Filter a run into the shard folder `out`; returns the lines to print. A dry run decides and writes nothing."""
    run = open_run(run_folder)
    if not dry_run and not overwrite:
        done = find_shards(run, run.trajectory(settings.end), settings, out)
        if done is not None:
            return [f"{out}: already done, {done['counts']['kept']:,} of {done['counts']['pairs']:,} pairs kept"]
    try:
        decisions = decide(run, settings)
        if dry_run:
            return [*decisions.said, f"dry run: {out} is not written"]
        manifest = write_shards(run, decisions, settings, out, overwrite=overwrite)
    except KeyboardInterrupt as e:
        raise Stopped(f"stopped; {run_folder} is as it was, {out} too. Run the same command again") from e
    files = len(manifest["parts"])
    return [*decisions.said, f"wrote {out}: {manifest['counts']['kept']:,} pairs in {files} file{'s' * (files > 1)}"]
