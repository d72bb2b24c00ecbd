"""What nano makes of the detector's proposals and of the picture, beside what it writes.

The decoder has read every proposal among all the others and the grid, and so knows more of each than the detector did
(the second stage of Faster R-CNN, arXiv:1506.01497, in a decoder that is there anyhow).
"""

from torch import Tensor, nn

from mmcli.models.nano.config import CLASSES, NanoConfig


class ProposalClassifier(nn.Module):
    """One logit for each class that the detector knows: of each proposal, and of the whole picture."""

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.thing = nn.Linear(config.decoder.width, CLASSES)
        self.picture = nn.Linear(config.decoder.width, CLASSES)

    def forward(self, things: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder made of the proposals [B, N, D] and of the grid [B, D] → [B, N, 80] and [B, 80]."""
        return self.thing(things).float(), self.picture(picture).float()
