"""mmcli: pictures in, words, boxes and masks out."""

from mmcli.version import __version__ as __version__
