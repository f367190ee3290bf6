"""A whole recipe, end to end: the runner that orders, skips and resumes the stages. Recipes are in pipelines/.

- `recipe`: a recipe, each section validated by its owner.
- `run`: the stages in order, then evaluation and audit.
- `summary`: the closing table.
- `demo`: the recipe and pairs that come with the package, and what was found of the truth.
- `cli`: the command line `rmo`.
"""
