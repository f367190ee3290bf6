"""`rmo`, also `python -m rmo`: handles Ctrl-C from the first line on."""

from __future__ import annotations

from rmo_train.console.loading import Loading


def main() -> None:
    with Loading():
        from rmo.cli import main as command
    command()


if __name__ == "__main__":
    main()
