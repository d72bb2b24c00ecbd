"""Parts that model families share, in plain PyTorch.

Shape letters, used in every docstring and comment below:
B batch · T tokens (queries) · S key positions · D width · N query heads · K key heads · H head width · P patches ·
F frames.
"""
