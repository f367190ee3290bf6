"""Engines: token ids in, response log-probs out."""
