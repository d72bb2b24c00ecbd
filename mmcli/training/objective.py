"""What is to become small, as one module, so that several processes can share it."""

import torch
from torch import Tensor, nn

from mmcli.engine.model import GenerativeModel
from mmcli.models.teaching import Batch, Teaching
from mmcli.training.loss import token_loss


class Objective(nn.Module):
    """A batch → the sum of the losses of its tokens, and that of what else its family makes small."""

    def __init__(self, model: GenerativeModel, teaching: Teaching, autocast: bool = False):
        super().__init__()
        self.model, self.teaching, self.autocast = model, teaching, autocast

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = batch.targets.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            states = self.teaching.states(self.model, batch)
            further = self.teaching.further_loss(self.model, batch, states) if torch.is_grad_enabled() else None
            loss = token_loss(self.teaching, self.model, states, batch.targets)
        return loss.float(), loss.new_zeros(()) if further is None else further.float()
