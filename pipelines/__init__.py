"""Recipes that chain the stages end to end, and the runner that orders, skips and resumes them."""
