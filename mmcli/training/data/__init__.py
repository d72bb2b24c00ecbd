"""Readers of training data, one a format: each yields examples, and counts and names what it could not read."""

from mmcli.training.data.reading import Allowance, Data, gather, read_examples
from mmcli.training.data.rows import BadRow

__all__ = ["Allowance", "BadRow", "Data", "gather", "read_examples"]
