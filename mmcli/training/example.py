"""Where examples used to be defined; see `mmcli.example`."""

from mmcli.example import Box as Box
from mmcli.example import Example as Example
from mmcli.example import Exchange as Exchange
from mmcli.example import LabelledObject as LabelledObject
from mmcli.example import Polygons as Polygons
from mmcli.example import RunLengths as RunLengths
