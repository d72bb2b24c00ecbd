"""What the engine asks of a model."""

from torch import Tensor, nn

from mmcli.engine.hand_over import Found, HandOver
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache


class GenerativeModel(nn.Module):
    """Base of every family's model: it reads a prompt into a cache, then a token at a time."""

    read_each_step: tuple[str, ...] = ("decoder",)
    """Parts whose weights every step reads: what they take in memory is what a step takes in time."""

    rows_join: bool = False
    """Whether rows may begin while others are being written: all that a step reads of them is in the cache, whose
    `context` can `insert` rows where there is one."""

    prefill_records: bool = False
    """Whether `prefill` into an empty cache can be recorded as a CUDA graph: it asks the device nothing, all shapes
    follow from those of the inputs, and the cache gets no context."""

    @property
    def like(self) -> Tensor:
        """A weight where the model computes, in the type in which it does."""
        return next(self.parameters())

    def new_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache for `batch` rows of `length` tokens."""
        raise NotImplementedError

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch of prompts into a cache → logits [B, V] of the first token to write."""
        raise NotImplementedError

    def likeliest(self, logits: Tensor, hand_over: HandOver | None = None) -> Found | None:
        """Logits [B, V] → the likeliest ids [B], and those beside their log-probabilities.

        It is asked for while a step is recorded, and None is the answer of models that have no kernel for it. Where
        that also does the `hand_over` to the next step, it is marked as done.
        """
        return None

    def before_step(self, tokens: Tensor) -> Tensor | None:
        """What the host must do for a step on tokens [B], such as fetching rows of a table that is not on the device.

        It is given to `step` as its third argument; None: there is nothing to do.
        """
        return None

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        raise NotImplementedError
