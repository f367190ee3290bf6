"""What both command lines share.

- `errors`: errors with an exit code: what is printed in place of a traceback.
- `command_line`: `--help` as plain text.
- `settings`: a component's settings as flags and as a recipe's section.
- `keywords`: the same as keyword arguments of Python functions.
- `wording`: numbers with their nouns.
- `progress`: bars on a terminal, log lines elsewhere.
- `version`: `--version`.
- `quiet`: libraries kept quiet.
- `loading`: what answers a Ctrl-C until a command is loaded.
"""
