"""Readers of training data, one a format: each yields examples, and counts and names what it could not read."""
