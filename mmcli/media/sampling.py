"""Which frames of a video are looked at."""

from dataclasses import dataclass

from mmcli.errors import UsageError

SHORTEST = 0.001  # seconds between two frames


@dataclass(frozen=True)
class Sampling:
    """One frame `every` so many seconds, or `count` of them, evenly spread."""

    every: float = 1.0
    count: int | None = None

    @classmethod
    def given(cls, every: float | None, count: int | None) -> "Sampling":
        """The sampling that was asked for, if any. Raises UsageError where it is given twice, or makes no sense."""
        if every is not None and count is not None:
            raise UsageError("--every and --frames contradict each other", "Give one of them")
        if every is not None and not every >= SHORTEST:
            raise UsageError(f"Frames cannot be {every} seconds apart", f"Give {SHORTEST} or more")
        if count is not None and count < 1:
            raise UsageError(f"{count} frames cannot be taken of a video", "Give 1 or more")
        return cls(1.0 if every is None else every, count)
