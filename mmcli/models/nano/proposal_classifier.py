"""What nano makes of the detector's proposals and of the picture, beside what it writes.

The decoder has read every proposal among all the others and the grid, and so knows more of each than the detector did
(the second stage of Faster R-CNN, arXiv:1506.01497, in a decoder that is there anyhow).
"""

from torch import Tensor, nn

from mmcli.models.nano.config import CLASSES, NanoConfig


class ProposalClassifier(nn.Module):
    """One logit for each class that the detector knows: of each proposal, and of the whole image."""

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.proposals = nn.Linear(config.decoder.width, CLASSES)
        self.image = nn.Linear(config.decoder.width, CLASSES)

    def forward(self, proposals: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder made of the proposals [B, N, D] and of the grid [B, D] → [B, N, 80] and [B, 80]."""
        return self.proposals(proposals).float(), self.image(image).float()
