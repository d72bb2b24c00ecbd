"""Objects as the toy family writes them: a label, then x0 y0 x1 y1 in sixteenths of the sides; several run on."""

from mmcli.decode.locations import Box, Loc
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
        objects, problems, label, places = [], [], [], []
        for token in tokens:
            if token.id < len(LETTERS):
                label, places = ([*label, token] if not places else [token]), []
                continue
            places.append(token)
            if len(places) == 4:
                name = decode_text([one.id for one in label]).strip()
                x0, y0, x1, y1 = loc = tuple(one.id - len(LETTERS) for one in places)
                if x0 < x1 and y0 < y1:
                    own = [one.logprob for one in (*label, *places)]
                    objects.append(ParsedObject(name, loc, None, sum(own) / len(own)))
                else:
                    problems.append(f'the box of "{name}" is empty')
                places = []
        return Parsed(objects, decode_text([token.id for token in tokens]), problems)

    def box(self, loc: Loc, width: int, height: int, divisor: int | None = None) -> Box:
        x0, y0, x1, y1 = loc
        return x0 * width / PLACES, y0 * height / PLACES, x1 * width / PLACES, y1 * height / PLACES
