"""Runs a recipe end to end: orders, skips and resumes the stages. Recipes are in pipelines/.

- `recipe`: a recipe; each section is validated by the component that it configures.
- `run`: the stages in order, then evaluation and audit.
- `summary`: the closing table.
- `demo`: the bundled recipe and pairs; compares the result with the true labels.
- `cli`: the command line `rmo`.
"""
