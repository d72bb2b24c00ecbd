"""Objects as the toy family writes them: a label, then x0 y0 x1 y1 in sixteenths of the sides; several run on."""

import re

from mmcli.decode.locations import is_empty
from mmcli.decode.objects import ObjectGrammar, ParsedObject

LETTERS, PLACES = " abcdefghijklmnopqrstuvwxyz", 16
END = len(LETTERS) + PLACES


class CornerGrammar(ObjectGrammar):
    """cat[02][00][10][15]dog[00][01][05][09]; four places with no extent are no box."""

    tokens = {"[00] … [15]": (len(LETTERS), END - 1)}  # noqa: RUF012 (never changed)

    def read(self, tokens, decode_text):
        kinds = "".join("a" if token.id < len(LETTERS) else "0" for token in tokens)
        for match in re.finditer("a+0{4}", kinds):
            own = tokens[match.start() : match.end()]
            name = decode_text([token.id for token in own[:-4]]).strip()
            loc = tuple(token.id - len(LETTERS) for token in own[-4:])
            yield f'the box of "{name}" is empty' if is_empty(loc) else ParsedObject.written(name, loc, own)

    def box(self, loc, width, height, divisor=None):
        return tuple(value * side / PLACES for value, side in zip(loc, (width, height) * 2, strict=True))
