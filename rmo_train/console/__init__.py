"""What both command lines share.

- `errors`: errors with an exit code: what is printed in place of a traceback.
- `settings`: a component's settings as flags and as a recipe's section.
- `trust`: what a model's folder may do beside giving numbers.
- `keywords`: the same as keyword arguments of Python functions.
- `wording`: numbers with their nouns.
- `progress`: bars on a terminal, log lines elsewhere.
- `version`: `--version`.
- `quiet`: libraries kept quiet.
- `loading`: what answers a Ctrl-C until a command is loaded.
"""
