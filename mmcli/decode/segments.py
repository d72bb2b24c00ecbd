"""Objects in a model's answer: four locations, perhaps sixteen mask codes, a label; " ; " between objects.

The grammar is PaliGemma's. Models break it when they are cut off, loop or guess, so reading never fails: what is
whole becomes an object, and what is not becomes a sentence in `problems`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar

from mmcli.decode import CODES, CORNERS, LOCATIONS, MASK_CODES, Vocabulary
from mmcli.decode.locations import DIVISOR, DIVISORS, Box, Loc, decode_box, is_empty
from mmcli.decode.objects import DecodeText, ObjectGrammar, Parsed, ParsedObject, coincide, named, parsed
from mmcli.types import Token

SEPARATOR = ";"


@dataclass(frozen=True)
class LocationGrammar(Vocabulary, ObjectGrammar):
    """This grammar, with the tokenizer's ids of its tokens."""

    mask_codes: ClassVar[int] = MASK_CODES
    divisors: ClassVar[tuple[int, ...]] = DIVISORS

    @property
    def tokens(self) -> dict[str, tuple[int, int]]:
        """As `ObjectGrammar.tokens`."""
        return {
            "<loc0000> … <loc1023>": (self.loc_start, self.loc_start + LOCATIONS - 1),
            "<seg000> … <seg127>": (self.seg_start, self.seg_start + MASK_CODES - 1),
        }

    def finds_places(self, ids: Sequence[int]) -> bool:
        """As `ObjectGrammar.finds_places`."""
        return any(self.location(id) is not None for id in ids)

    def parse(self, tokens: Sequence[Token], decode_text: DecodeText, *, masks: bool = False) -> Parsed:
        """As `ObjectGrammar.parse`."""
        return parse(tokens, self, decode_text, masks=masks)

    def box(self, loc: Loc, width: int, height: int, divisor: int | None = None) -> Box:
        """As `ObjectGrammar.box`."""
        return decode_box(loc, width, height, divisor or DIVISOR)


@dataclass
class _Draft:
    """What one object's place in the answer holds, whole or not."""

    locations: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    label: str = ""
    logprobs: list[float] = field(default_factory=list)

    def name(self) -> str:
        return named(self.label)


def parse(
    tokens: Sequence[Token],
    vocabulary: Vocabulary,
    decode_text: DecodeText,
    *,
    masks: bool = False,
    merge: bool = True,
) -> Parsed:
    """Read the objects in an answer; never raises, whatever the tokens.

    `tokens` are the answer without its stop token; `decode_text` gives the text of ids, locations and mask codes
    as <locNNNN> and <segNNN>. Of objects of one label at the same place, or nearly so, the better one is kept, and
    that is reported; without `merge` all are kept, for who chooses among them. With `masks` an object without mask
    codes is a fault.
    """
    drafts, stray = _drafts(tokens, vocabulary, decode_text)
    problems = Counter(stray)
    objects: list[ParsedObject] = []
    for draft in drafts:
        problem = _fault(draft)
        if problem is None:
            problem = _mask_fault(draft, masks)
            found = _object(draft)
            double = next((i for i, other in enumerate(objects) if merge and coincide(found, other)), None)
            if double is None:
                objects.append(found)
            else:
                problem = f"{draft.name()} is repeated at the same place; it is kept once"
                objects[double] = max(objects[double], found, key=lambda one: (one.seg is not None, one.score))
        if problem:
            problems[problem] += 1
    return parsed(objects, problems, tokens, decode_text)


def format_objects(objects: Iterable[tuple[Loc, Sequence[int] | None, str]]) -> str:
    """The answer that names these objects (locations, mask codes or None, label): what a model is taught to say.

    Raises ValueError for a label that holds the separator.
    """

    def one(loc: Loc, seg: Sequence[int] | None, label: str) -> str:
        if SEPARATOR in label:
            raise ValueError(f"a label cannot hold {SEPARATOR!r}: {label!r}")
        marks = "".join(f"<loc{value:04d}>" for value in loc) + "".join(f"<seg{code:03d}>" for code in seg or ())
        return f"{marks} {label}".rstrip()

    return f" {SEPARATOR} ".join(one(*item) for item in objects)


def _drafts(tokens: Sequence[Token], vocabulary: Vocabulary, decode_text: DecodeText) -> tuple[list[_Draft], list[str]]:
    """Cut the answer into drafts; the second list tells of words after an object that belong to none."""

    def kind(token: Token) -> str:
        if vocabulary.location(token.id) is not None:
            return "location"
        return "text" if vocabulary.mask_code(token.id) is None else "code"

    runs = [(key, list(run)) for key, run in groupby(tokens, kind)]
    # White space does not part what belongs together: "<loc0001> <loc0002>" is one run of locations.
    runs = [(key, run) for key, run in runs if key != "text" or decode_text([t.id for t in run]).strip()]
    drafts: list[_Draft] = []
    stray: list[str] = []
    locations: list[Token] = []
    codes: list[Token] = []

    def close(label: str, own: list[Token]) -> None:
        """End the object that the pending locations and codes began, if they began one."""
        nonlocal locations, codes
        if locations or codes:
            drafts.extend(_split(locations, codes, label, own, vocabulary))
        locations, codes = [], []

    for key, run in runs:
        if key == "text":
            pieces = decode_text([token.id for token in run]).split(SEPARATOR)
            if locations or codes:
                close(pieces[0].strip(), _tokens_of_label(run, decode_text))
                pieces = pieces[1:]
            if drafts:  # words before the first object are free
                stray += [f'"{piece.strip()[:40]}" has no box' for piece in pieces if piece.strip()]
        elif key == "location":
            if codes:
                close("", [])
            locations += run
        else:
            codes += run
    close("", [])
    return drafts, stray


def _split(
    locations: list[Token], codes: list[Token], label: str, own: list[Token], vocabulary: Vocabulary
) -> list[_Draft]:
    """Drafts of a run of locations with what follows it; all but the last are boxes without a label."""
    whole, rest = divmod(len(locations), CORNERS)
    if rest and whole and (codes or label):
        whole -= 1  # five corners and a label: which four were meant cannot be known, so the last draft takes all five
    elif not rest and whole:
        whole -= 1
    cuts = [locations[i * CORNERS : (i + 1) * CORNERS] for i in range(whole)] + [locations[whole * CORNERS :]]
    drafts = [
        _Draft([token.id - vocabulary.loc_start for token in cut], logprobs=[token.logprob for token in cut])
        for cut in cuts
    ]
    last = drafts[-1]
    last.codes, last.label = [token.id - vocabulary.seg_start for token in codes], label
    last.logprobs += [token.logprob for token in codes + own]
    return drafts


def _tokens_of_label(run: list[Token], decode_text: DecodeText) -> list[Token]:
    """The tokens of a text run that spell the words before its first separator; those may share a token with it."""

    def text(count: int) -> str:
        return decode_text([token.id for token in run[:count]])

    # Once a prefix holds the separator every longer one does, so the first such prefix can be bisected.
    end = bisect_left(range(len(run)), True, key=lambda index: SEPARATOR in text(index + 1)) + 1
    end = min(end, len(run))
    label = text(end).split(SEPARATOR)[0].strip()
    while end and text(end - 1).strip() == label:
        end -= 1
    return run[:end]


def _fault(draft: _Draft) -> str | None:
    """Why a draft is no object, or None."""
    corners = len(draft.locations)
    if not corners:
        count = len(draft.codes)
        return f"{count} mask codes have no box" if count > 1 else "1 mask code has no box"
    if corners < CORNERS:
        return f"{draft.name()} has {corners} of {CORNERS} corners"
    if corners > CORNERS:
        return f"{draft.name()} has {corners} corners instead of {CORNERS}"
    if is_empty(draft.locations):
        return f"the box of {draft.name()} is empty"
    return None


def _mask_fault(draft: _Draft, wanted: bool) -> str | None:
    """Why a whole object's mask is left out, or None; that it has none is a fault where masks are `wanted`."""
    count = len(draft.codes)
    if not count and wanted:
        return f"{draft.name()} has no mask codes, so it has a box and no mask"
    if count in (0, CODES):
        return None
    amount = f"{count} of {CODES} mask codes" if count < CODES else f"{count} mask codes instead of {CODES}"
    return f"{draft.name()} has {amount}; its mask is left out"


def _object(draft: _Draft) -> ParsedObject:
    seg = tuple(draft.codes) if len(draft.codes) == CODES else None
    return ParsedObject(draft.label, tuple(draft.locations), seg, sum(draft.logprobs) / len(draft.logprobs))
