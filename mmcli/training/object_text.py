"""See `mmcli.models.object_text`."""

from mmcli.models.object_text import codes_of as codes_of
from mmcli.models.object_text import object_text as object_text
