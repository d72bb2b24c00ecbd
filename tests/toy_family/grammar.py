"""Objects as the toy family writes them: a label, then x0 y0 x1 y1 in sixteenths of the sides; several run on."""

import re

from mmcli.decode.objects import Parsed, ParsedObject

LETTERS, PLACES = " abcdefghijklmnopqrstuvwxyz", 16
END = len(LETTERS) + PLACES


class CornerGrammar:
    """cat[02][00][10][15]dog[00][01][05][09]; four places with no extent are no box."""

    tokens = {"[00] … [15]": (len(LETTERS), END - 1)}  # noqa: RUF012 (never changed)
    mask_codes, divisors = 0, ()

    def finds_places(self, ids):
        return any(len(LETTERS) <= id < END for id in ids)

    def parse(self, tokens, decode_text, *, masks=False):
        objects, problems = [], []
        kinds = "".join("a" if token.id < len(LETTERS) else "0" for token in tokens)
        for match in re.finditer("a+0{4}", kinds):
            own = tokens[match.start() : match.end()]
            name = decode_text([token.id for token in own[:-4]]).strip()
            x0, y0, x1, y1 = loc = tuple(token.id - len(LETTERS) for token in own[-4:])
            if x0 < x1 and y0 < y1:
                objects.append(ParsedObject(name, loc, None, sum(token.logprob for token in own) / len(own)))
            else:
                problems.append(f'the box of "{name}" is empty')
        return Parsed(objects, decode_text([token.id for token in tokens]), problems)

    def box(self, loc, width, height, divisor=None):
        return tuple(value * side / PLACES for value, side in zip(loc, (width, height) * 2, strict=True))
