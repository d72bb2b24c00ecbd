"""A decoder's table of tokens, which is its head as well where the two are tied."""

from torch import Tensor, nn

from mmcli.layers import kernels


class Table(nn.Embedding):
    """Token ids [...] → vectors [..., D]; and vectors → logits over its rows."""

    is_head = True  # False: nobody asks it for logits

    def logits(self, hidden: Tensor, vocabulary: int | None = None, cap: float | None = None) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V] of the first `vocabulary` rows (None: of all), with a `cap`
        as cap · tanh(logit / cap)."""
        return kernels.float_logits(hidden, self.weight[:vocabulary], cap)
