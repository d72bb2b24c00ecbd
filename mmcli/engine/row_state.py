"""What a model keeps of every row of a batch beside the keys and values of its tokens."""


class RowState:
    """Base of what families keep in `KVCache.context`: it follows the rows of the cache."""

    shared = False  # whether neighbouring rows of the cache (the beams of one answer) attend to one row here

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; a row may be taken several times."""
        raise NotImplementedError

    def insert(self, row: int, other: "RowState", source: int = 0) -> bool:
        """Let row `source` of another batch take the place of `row`.

        Returns whether all rows lie elsewhere in memory now, where a recorded step would not find them. Raises
        NotImplementedError where a family's rows begin and end together.
        """
        raise NotImplementedError(f"{type(self).__name__}: rows cannot be inserted")

    def copied(self) -> "RowState | None":
        """The same in memory of its own, for a recorded step to read, where others can be put; None: better not."""
        return None

    def take(self, other: "RowState") -> bool:
        """Have what `other` has, in our own memory; returns False, and changes nothing, where it does not fit."""
        return False

    def shift(self, places: int) -> None:
        """What stood at a place of the cache stands so many places further back now, or in front if negative."""
        raise NotImplementedError(f"{type(self).__name__}: tokens cannot change places")
