"""Reading objects from token ids, above all from what a model should not have said."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.decode import Vocabulary
from mmcli.decode.segments import Parsed, format_objects, parse
from mmcli.types import Token

# A tokenizer of characters: ids below 1000 stand apart from locations and mask codes; "|" ends a token of words.
VOCABULARY = Vocabulary(loc_start=10_000, seg_start=20_000)
WORDS: dict[str, int] = {}


def word(text: str) -> int:
    return WORDS.setdefault(text, len(WORDS) + 30_000)


def decode_text(ids: list[int]) -> str:
    texts = {id: text for text, id in WORDS.items()}

    def one(id: int) -> str:
        if VOCABULARY.location(id) is not None:
            return f"<loc{id - 10_000:04d}>"
        return f"<seg{id - 20_000:03d}>" if VOCABULARY.mask_code(id) is not None else texts.get(id, "?")

    return "".join(map(one, ids))


def tokens(text: str, logprob: float = -0.5) -> list[Token]:
    """Marks become single ids, the rest one id a character, or one id for what stands between two bars."""
    ids = []
    for mark, value, chunk, character in re.findall(r"<(loc|seg)(\d+)>|\|([^|]*)\||(.)", text, flags=re.DOTALL):
        if mark:
            ids.append(int(value) + (10_000 if mark == "loc" else 20_000))
        else:
            ids.append(word(chunk or character))
    return [Token(id, logprob) for id in ids]


def read(text: str) -> Parsed:
    return parse(tokens(text), VOCABULARY, decode_text)


def locs(*values: int) -> str:
    return "".join(f"<loc{value:04d}>" for value in values)


BOX, OTHER = locs(10, 20, 30, 40), locs(50, 60, 70, 80)
FLAT, TURNED = locs(10, 20, 10, 40), locs(30, 20, 10, 40)
SEG = "".join(f"<seg{code:03d}>" for code in range(16))
BOX_INTS, OTHER_INTS = (10, 20, 30, 40), (50, 60, 70, 80)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"{BOX} cat", [("cat", BOX_INTS, False)]),
        (f"{BOX}{SEG} cat", [("cat", BOX_INTS, True)]),
        (f"{BOX}{SEG} cat ; {OTHER} dog", [("cat", BOX_INTS, True), ("dog", OTHER_INTS, False)]),
        (f"{BOX} cat;{OTHER} dog", [("cat", BOX_INTS, False), ("dog", OTHER_INTS, False)]),  # no spaces around it
        (f"{BOX} cat| ; |{OTHER} dog", [("cat", BOX_INTS, False), ("dog", OTHER_INTS, False)]),  # one token
        (f"{BOX}| cat;| {OTHER} dog", [("cat", BOX_INTS, False), ("dog", OTHER_INTS, False)]),  # glued to the label
        (f"{BOX} a grey cat", [("a grey cat", BOX_INTS, False)]),  # labels of several words
        (f"{BOX}", [("", BOX_INTS, False)]),  # a fine-tune on one class may say no label
        (f"{BOX}{SEG}", [("", BOX_INTS, True)]),  # referring segmentation says none either
        (f"{BOX} ; {OTHER}", [("", BOX_INTS, False), ("", OTHER_INTS, False)]),
        (f"{BOX}{OTHER} dog", [("", BOX_INTS, False), ("dog", OTHER_INTS, False)]),  # eight corners are two boxes
        (f"{BOX}\n{OTHER} dog", [("", BOX_INTS, False), ("dog", OTHER_INTS, False)]),  # a newline for a separator
        (f"<loc0010> <loc0020> <loc0030> <loc0040> {SEG} cat", [("cat", BOX_INTS, True)]),  # spaces within
        (f"Two pets: {BOX} cat", [("cat", BOX_INTS, False)]),  # words may precede
        (f"first ; {BOX} cat", [("cat", BOX_INTS, False)]),  # and hold the separator
        (f"\n{BOX} cat\n", [("cat", BOX_INTS, False)]),
        (f"{BOX} cat ; ", [("cat", BOX_INTS, False)]),  # a separator too many at the end
        (f"{BOX} cat ; {OTHER} cat", [("cat", BOX_INTS, False), ("cat", OTHER_INTS, False)]),  # two cats
        (f"{BOX} cat ; {BOX} pet", [("cat", BOX_INTS, False), ("pet", BOX_INTS, False)]),  # two names for one box
        (f"{BOX} 猫 ; {OTHER} chien assis", [("猫", BOX_INTS, False), ("chien assis", OTHER_INTS, False)]),
        ("", []),
        ("\n", []),
        ("no objects here", []),
        (";;;", []),
    ],
)
def test_whole_answers_have_their_objects_and_no_problems(answer, expected):
    parsed = read(answer)
    assert [(o.label, o.loc, o.seg is not None) for o in parsed.objects] == expected
    assert parsed.problems == []
    assert parsed.text == answer.replace("|", "")


@pytest.mark.parametrize(
    ("answer", "labels", "problems"),
    [
        # Cut off at the token limit, at every place.
        (f"{BOX} cat ; <loc0001>", ["cat"], ["an object has 1 of 4 corners"]),
        (f"{BOX} cat ; {locs(1, 2, 3)}", ["cat"], ["an object has 3 of 4 corners"]),
        (f"{BOX}<seg001>", [""], ["an object has 1 of 16 mask codes; its mask is left out"]),
        (f"{BOX}{SEG[:-8]}", [""], ["an object has 15 of 16 mask codes; its mask is left out"]),
        (f"{BOX}{OTHER}{locs(1, 2)}", ["", ""], ["an object has 2 of 4 corners"]),  # a loop of bare boxes, cut
        # The wrong number of corners.
        (f"{locs(1, 2, 3)} cat", [], ['"cat" has 3 of 4 corners']),
        (f"{locs(1, 2, 3)} cat ; {OTHER} dog", ["dog"], ['"cat" has 3 of 4 corners']),  # the next one is whole
        (f"{BOX}<loc0050> cat", [], ['"cat" has 5 corners instead of 4']),  # no telling which four
        (f"{BOX}{locs(1, 2, 3)} cat", [], ['"cat" has 7 corners instead of 4']),
        (f"{BOX}{OTHER}<loc0001> cat", [""], ['"cat" has 5 corners instead of 4']),  # the first box is whole
        (f"{BOX}<loc0001>{SEG}", [], ["an object has 5 corners instead of 4"]),
        (f"{locs(1, 2)}{SEG} cat", [], ['"cat" has 2 of 4 corners']),
        (f"{locs(1, 2)} x {locs(3, 4)} y", [], ['"x" has 2 of 4 corners', '"y" has 2 of 4 corners']),
        # The wrong number of mask codes: the box is good.
        (f"{BOX}{SEG[:72]} cat", ["cat"], ['"cat" has 9 of 16 mask codes; its mask is left out']),
        (f"{BOX}{SEG}<seg001> cat", ["cat"], ['"cat" has 17 mask codes instead of 16; its mask is left out']),
        (f"{BOX}{SEG}{SEG} cat", ["cat"], ['"cat" has 32 mask codes instead of 16; its mask is left out']),
        # Mask codes where no box is.
        (SEG, [], ["16 mask codes have no box"]),
        ("<seg001>", [], ["1 mask code has no box"]),
        (f"{SEG} cat ; {BOX} dog", ["dog"], ["16 mask codes have no box"]),
        (f"{BOX} cat {SEG}", ["cat"], ["16 mask codes have no box"]),  # after the label is too late
        (f"{SEG}{BOX} cat", ["cat"], ["16 mask codes have no box"]),  # before the box is too early
        # Boxes without an inside.
        (f"{FLAT} cat", [], ['the box of "cat" is empty']),
        (f"{TURNED} cat", [], ['the box of "cat" is empty']),  # x and y swapped, or first and last
        (locs(0, 0, 0, 0), [], ["the box of an object is empty"]),
        (f"{FLAT}{SEG[:8]} cat", [], ['the box of "cat" is empty']),  # one sentence for one object
        (f"{FLAT} cat ; {BOX} dog", ["dog"], ['the box of "cat" is empty']),
        # Words that belong to no box.
        (f"{BOX} cat ; dog", ["cat"], ['"dog" has no box']),
        (f"{BOX} cat ; dog ; {OTHER} bird", ["cat", "bird"], ['"dog" has no box']),
        # Loops.
        (f"{BOX} cat ; {BOX} cat", ["cat"], ['"cat" is repeated at the same place; it is kept once']),
        (
            f"{BOX} cat ; " * 5 + f"{OTHER} dog",
            ["cat", "dog"],
            ['"cat" is repeated at the same place; it is kept once (4 times)'],
        ),
        (f"{FLAT} a ; " * 3, [], ['the box of "a" is empty (3 times)']),
        (f"{BOX}{BOX}", [""], ["an object is repeated at the same place; it is kept once"]),
        # A label that runs away is shortened in the sentence.
        (f"{FLAT} {'very ' * 20}long", [], [f'the box of "{("very " * 20)[:39]}…" is empty']),
    ],
)
def test_malformed_answers_keep_what_is_whole_and_report_the_rest(answer, labels, problems):
    parsed = read(answer)
    assert [found.label for found in parsed.objects] == labels
    assert parsed.problems == problems


def test_the_score_is_the_mean_over_the_objects_own_tokens():
    own = tokens(BOX + SEG, -1.0) + tokens(" cat", -2.0)
    others = tokens("seen: ", -9.0), tokens(" ; ", -9.0), tokens(f"{OTHER} dog", -9.0)
    parsed = parse([*others[0], *own, *others[1], *others[2]], VOCABULARY, decode_text)
    assert parsed.objects[0].score == pytest.approx((20 * -1.0 + 4 * -2.0) / 24)


def test_a_separator_glued_to_the_label_counts_with_the_label():
    answer = tokens(BOX, -1.0) + tokens("| cat;|", -3.0) + tokens(f" {OTHER}", -9.0)
    assert parse(answer, VOCABULARY, decode_text).objects[0].score == pytest.approx((4 * -1.0 - 3.0) / 5)


def test_a_mask_keeps_its_codes():
    assert read(f"{BOX}{SEG} cat").objects[0].seg == tuple(range(16))


# Every token a model can say, and some it cannot.
any_token = st.builds(
    Token,
    st.one_of(
        st.integers(10_000, 11_023),
        st.integers(20_000, 20_127),
        st.integers(-5, 10**6),
        st.sampled_from([word(text) for text in (" ", ";", " ; ", "cat", "\n", "é;", "")]),
    ),
    st.floats(),
)


@given(st.lists(any_token, max_size=120))
def test_no_sequence_of_tokens_is_too_wrong_to_read(answer):
    parsed = parse(answer, VOCABULARY, decode_text)
    for found in parsed.objects:
        y0, x0, y1, x1 = found.loc
        assert 0 <= y0 < y1 <= 1023 and 0 <= x0 < x1 <= 1023
        assert found.seg is None or len(found.seg) == 16
        assert found.label == found.label.strip() and ";" not in found.label
    assert len({(found.label, found.loc) for found in parsed.objects}) == len(parsed.objects)
    assert all(parsed.problems) and len(set(parsed.problems)) == len(parsed.problems)


corner_pairs = st.lists(st.integers(0, 1023), min_size=2, max_size=2, unique=True).map(sorted)
boxes = st.builds(lambda y, x: (y[0], x[0], y[1], x[1]), corner_pairs, corner_pairs)
labels = st.text(alphabet="abc äé猫<>'", max_size=8).map(str.strip).filter(lambda label: "loc" not in label)
codes = st.none() | st.lists(st.integers(0, 127), min_size=16, max_size=16)


@given(st.lists(st.tuples(boxes, codes, labels), max_size=8, unique_by=lambda item: (item[0], item[2])))
def test_what_is_written_is_read(objects):
    text = format_objects(objects)
    parsed = read(text)
    assert [(o.loc, o.seg and list(o.seg), o.label) for o in parsed.objects] == objects
    assert parsed.problems == [] and parsed.text == text


def test_a_label_with_the_separator_cannot_be_written():
    with pytest.raises(ValueError, match="cannot hold ';'"):
        format_objects([((1, 2, 3, 4), None, "cat; dog")])


def test_a_long_answer_is_read_in_linear_time():
    parsed = read(" ; ".join(f"{locs(i % 500, 1, 600, 900)} thing {i}" for i in range(300)))
    assert len(parsed.objects) == 300


def test_importing_brings_neither_torch_nor_numpy():
    code = "import mmcli.decode.segments, sys; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


LARGE, NEARLY, HALF = locs(100, 100, 500, 500), locs(102, 100, 505, 498), locs(100, 100, 300, 500)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (f"{LARGE} cat ; {NEARLY} cat", [(100, 100, 500, 500)]),
        (f"{LARGE} cat ; {NEARLY}{SEG} cat", [(102, 100, 505, 498)]),  # the one with a mask is the better one
        (f"{LARGE} cat ; {NEARLY} dog", [(100, 100, 500, 500), (102, 100, 505, 498)]),
        (f"{LARGE} cat ; {HALF} cat", [(100, 100, 500, 500), (100, 100, 300, 500)]),
    ],
)
def test_boxes_of_one_label_that_nearly_coincide_are_one(answer, kept):
    parsed = read(answer)
    assert [found.loc for found in parsed.objects] == kept
    assert bool(parsed.problems) == (len(kept) == 1)


def test_of_two_equal_things_the_likelier_one_is_kept():
    likely, unlikely = tokens(f"{LARGE} cat", -0.1), tokens(f"{NEARLY} cat", -2.0)
    for first, second in ((likely, unlikely), (unlikely, likely)):
        [found] = parse([*first, *tokens(" ; "), *second], VOCABULARY, decode_text).objects
        assert found.loc == (100, 100, 500, 500)


def test_whoever_chooses_among_the_objects_gets_them_all():
    both = [*tokens(f"{LARGE} cat"), *tokens(" ; "), *tokens(f"{NEARLY} cat")]
    parsed = parse(both, VOCABULARY, decode_text, merge=False)
    assert len(parsed.objects) == 2 and parsed.problems == []


@pytest.mark.parametrize(
    ("masks", "problems"), [(True, ['"dog" has no mask codes, so it has a box and no mask']), (False, [])]
)
def test_where_masks_are_asked_for_an_object_without_one_is_a_fault(masks, problems):
    parsed = parse(tokens(f"{BOX}{SEG} cat ; {OTHER} dog"), VOCABULARY, decode_text, masks=masks)
    assert [found.seg is None for found in parsed.objects] == [False, True]
    assert parsed.problems == problems
