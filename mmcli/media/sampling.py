"""Which frames of a video are looked at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """One frame `every` so many seconds, or `count` of them, evenly spread."""

    every: float = 1.0
    count: int | None = None
