"""Annotations of PASCAL VOC (its devkit's readme): an XML file an image, edges as whole pixels counted from 1."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from mmcli.escape import escape_xml
from mmcli.output.datasets.items import Files, Item, Items


def files(items: Items) -> Files:
    """`Annotations/` holds the images' tree."""
    for item in items():
        yield f"Annotations/{item.label.as_posix()}.xml", _document(item)


def _document(item: Item) -> Iterator[str]:
    record = item.record
    root = ET.Element("annotation")

    def add(parent: ET.Element, name: str, text: object = "") -> ET.Element:
        child = ET.SubElement(parent, name)
        child.text = escape_xml(str(text))
        return child

    add(root, "folder", item.place.parent.as_posix())
    add(root, "filename", item.place.name)
    add(add(root, "source"), "database", "mmcli")
    size = add(root, "size")
    for side, pixels in (("width", record.width), ("height", record.height), ("depth", 3)):
        add(size, side, pixels)
    add(root, "segmented", 0)
    for found in record.objects:
        entry = add(root, "object")
        for name, value in (("name", found.label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            add(entry, name, value)
        box = add(entry, "bndbox")
        x0, y0, x1, y1 = (round(edge) for edge in found.box)
        for edge, at in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", max(x1, x0 + 1)), ("ymax", max(y1, y0 + 1))):
            add(box, edge, at)
    ET.indent(root)
    yield ET.tostring(root, "unicode") + "\n"
