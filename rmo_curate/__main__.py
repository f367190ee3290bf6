"""`rmo-curate`, also `python -m rmo_curate`: the first lines that run, so that a Ctrl-C is answered from the start."""

from __future__ import annotations

from rmo_train.console.loading import Loading


def main() -> None:
    with Loading():
        from rmo_curate.cli import main as command
    command()


if __name__ == "__main__":
    main()
