"""Shared by both command lines.

- `errors`: errors with an exit code, printed instead of a traceback.
- `command_line`: `--help` as plain text.
- `settings`: a component's settings as flags and as a recipe's section.
- `trust`: what a model's folder may do beside giving numbers.
- `extras`: how the packages of an extra are installed.
- `keywords`: the same as keyword arguments of Python functions.
- `wording`: singular and plural.
- `progress`: bars on a terminal, log lines elsewhere.
- `version`: `--version`.
- `quiet`: silences libraries.
- `loading`: handles Ctrl-C while a command is being loaded.
"""
