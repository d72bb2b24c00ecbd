"""A decoder's table of tokens, which is its head as well where the two are tied."""

from torch import Tensor, nn

from mmcli.layers import kernels


class Table(nn.Embedding):
    """Token ids [...] → vectors [..., D]; and vectors → logits over its rows."""

    def logits(self, hidden: Tensor, vocabulary: int | None = None) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V] of the first `vocabulary` rows (None: of all)."""
        return kernels.linear(hidden, self.weight[:vocabulary]).float()
