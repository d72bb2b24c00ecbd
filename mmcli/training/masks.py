"""See `mmcli.models.drawn_masks`."""

from mmcli.models.drawn_masks import cut as cut
from mmcli.models.drawn_masks import pixels as pixels
