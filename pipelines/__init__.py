"""Recipes that chain the stages end to end, and the runner that orders, skips and resumes them.

- `recipe`: a recipe, validated.
- `run`: the runner.
- `summary`: the closing table.

Recipes: quickstart (the demo), judged_pairs, hh_rlhf, ultrafeedback, paper.
"""
