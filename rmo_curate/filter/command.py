"""The filter, from a run folder to shards: read -> decide -> write.

`decisions` says which pairs go, `summary` and `wording` what that comes to, `shards` writes what stays; this module is
what `rmo-curate filter` calls.
"""

from __future__ import annotations

from pathlib import Path

from rmo_curate.filter.decisions import Decisions, decide
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.filter.shards import MAKER, find_shards, write_shards
from rmo_curate.filter.summary import summary
from rmo_curate.filter.wording import already_done_lines, decision_lines, written_line
from rmo_curate.runs.replacing import refuse_foreign_files
from rmo_curate.runs.run import open_run
from rmo_train.console.errors import Stopped
from rmo_train.store.folder_lock import making

__all__ = ["Decisions", "FilterSettings", "decide", "run_filter", "write_shards"]


def run_filter(
    run_folder: Path, out: Path, settings: FilterSettings, *, overwrite: bool = False, dry_run: bool = False
) -> list[str]:
    """Filter a run into the shard folder `out`; returns the lines to print. A dry run decides and writes no shards."""
    run = open_run(run_folder)
    if overwrite:
        refuse_foreign_files(out.resolve(), "shards", MAKER)
    elif out.resolve().parent.is_dir():
        with making(out, "rmo-curate"):  # nobody replaces it now
            done = find_shards(run, run.trajectory(settings.end), settings, out)
        if done is not None:
            return already_done_lines(out, done)
    try:
        decisions = decide(run, settings)
        lines = decision_lines(decisions, summary(run, decisions))
        if dry_run:
            return [*lines, f"dry run: {out} is not written"]
        manifest = write_shards(run, decisions, settings, out, overwrite=overwrite)
    except KeyboardInterrupt as e:
        raise Stopped(f"stopped; {run_folder} and {out} are unchanged. Run the same command again") from e
    return [*lines, written_line(out, manifest.counts, len(manifest.parts))]
