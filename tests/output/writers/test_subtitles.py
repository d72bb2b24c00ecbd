"""Subtitles: what can be read, what is kept, and what other programs make of the files."""

import html
import io

import pytest
import srt
import webvtt
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmcli.output.writers.phrases import width
from mmcli.output.writers.subtitles import Cue, cues, to_srt, to_tsv, to_vtt
from mmcli.types import Segment, Word

SPEECH = (
    "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country. "
    "My fellow citizens of the world: ask not what America will do for you, but what together we can do for the "
    "freedom of man."
)


def segment(start, end, text, words=None):
    return Segment(start, end, text, None if words is None else tuple(words))


def spoken(start: float, text: str, each: float = 0.4, pauses: dict[int, float] | None = None):
    """A segment with word times: every word lasts `each` seconds; `pauses` come before the words of those numbers."""
    words, clock = [], start
    for index, word in enumerate(text.split()):
        clock += (pauses or {}).get(index, 0.0)
        words.append(Word(round(clock, 3), round(clock + each, 3), word, 0.9))
        clock += each
    return segment(start, round(clock, 3), text, words)


def texts(found: list[Cue]) -> list[str]:
    return [" / ".join(cue.lines) for cue in found]


def letters(text: str) -> str:
    return "".join(text.split())


# -- whatever was said -------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.text("abcdefgh,.!?'", min_size=1, max_size=12),
    st.text("日本語の字幕です。、「」ー", min_size=1, max_size=40),
    st.text("한국어자막", min_size=1, max_size=6),
    st.text("กขคงจฉชซดตถทนบปผ", min_size=30, max_size=100),
    st.text("e\u0301\u0323x", min_size=1, max_size=60),
    st.sampled_from(["-->", "<b>", "&amp;", "</i>", "1", "00:00:01,000", "WEBVTT", "NOTE", "{\\an8}", "🙂" * 30, "—"]),
    st.text(min_size=1, max_size=8),
    st.just("https://example.com/" + "a" * 90),
)
TIMES = st.floats(0, 1000, allow_nan=False).map(lambda seconds: round(seconds, 3))


@st.composite
def transcripts(draw):
    found, clock = [], draw(st.sampled_from([0.0, 5.0, 359_990.0]))
    for _ in range(draw(st.integers(0, 6))):
        start = max(clock + draw(st.sampled_from([-0.5, 0.0, 0.0, 0.01, 0.4, 3.0, 60.0])), 0.0)
        end = start + draw(st.sampled_from([0.0, 0.02, 0.5, 1.0, 2.5, 6.0, 12.0, 29.98]))
        words = draw(st.lists(WORDS, max_size=30))
        text = draw(st.sampled_from([" ", " ", "\n", "\t "])).join(words)
        timed = None
        if draw(st.booleans()) and words:
            at = sorted(draw(st.lists(st.floats(start, end), min_size=2 * len(words), max_size=2 * len(words))))
            timed = [Word(at[2 * index], at[2 * index + 1], word, 0.5) for index, word in enumerate(words)]
        found.append(segment(start, end, text, timed))
        clock = end
    return found


@settings(suppress_health_check=[HealthCheck.too_slow])  # which looks at a clock
@given(transcripts())
@example([segment(5, 5, "one"), segment(5, 5, "two"), segment(5, 5, "x" * 200)])
@example([segment(0, 30, "word " * 200)])
def test_cues_are_readable_rise_never_overlap_and_keep_every_word(segments):
    found = cues(segments)
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(line and line.strip() == line and width(line) <= 42 for line in cue.lines)
        assert 0 < cue.end - cue.start <= 7.0005
    for cue, following in zip(found, found[1:], strict=False):
        assert cue.end <= following.start
    kept = letters("".join("".join(cue.lines) for cue in found))
    said = letters("".join(one.text for one in segments))
    assert len(kept) == len(said)
    assert all(one == other or one == "\ufffd" for one, other in zip(kept, said, strict=True))
    if found:
        last = max(one.end for one in segments)
        assert found[-1].end <= last + 0.001 * (1 + len(found)) + 0.001


@given(st.lists(st.text("abcdefghij", min_size=1, max_size=15), min_size=1, max_size=120), st.floats(0.05, 40))
def test_words_with_spaces_keep_them_and_are_never_torn(words, seconds):
    found = cues([segment(1, 1 + seconds, " ".join(words))])
    assert " ".join(" ".join(cue.lines) for cue in found).split() == words
    assert found[0].start == 1


@settings(max_examples=60)
@given(transcripts())
def test_other_programs_read_the_files(segments):
    found = cues(segments)
    parsed = list(srt.parse(to_srt(found), ignore_errors=False))
    assert [one.index for one in parsed] == list(range(1, len(found) + 1))
    for one, cue in zip(parsed, found, strict=True):
        assert one.start.total_seconds() == pytest.approx(cue.start, abs=1e-6)
        assert one.end.total_seconds() == pytest.approx(cue.end, abs=1e-6)
        assert one.content == "\n".join(cue.lines).replace("-->", "→")
    captions = webvtt.from_buffer(io.StringIO(to_vtt(found))).captions
    assert len(captions) == len(found)
    for one, cue in zip(captions, found, strict=True):
        assert one.start_in_seconds == pytest.approx(int(cue.start), abs=1)
        assert html.unescape(one.raw_text) == "\n".join(cue.lines)


# -- what reads well ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Yes.", ["Yes."]),
        ("Exactly forty-two columns fit on one line!", ["Exactly forty-two columns fit on one line!"]),
        ("One line more than that is broken in the middle, not at the end.", None),
        ("He came, saw the whole of the city, and he left.", ["He came, saw the whole of the city, / and he left."]),
        ("これは字幕です。とても長い文章なので分けます。", ["これは字幕です。 / とても長い文章なので分けます。"]),
    ],
)  # fmt: skip
def test_how_a_cue_is_broken_into_lines(text, expected):
    found = texts(cues([segment(0, 5, text)]))
    if expected is None:
        one, other = found[0].split(" / ")
        assert abs(len(one) - len(other)) < 16
    else:
        assert found == expected


def around(before: int, mark: str) -> list[str]:
    """The lines of a text with a mark behind so many characters."""
    return [line for cue in cues([segment(0, 30, "字" * before + mark + "語" * 40)]) for line in cue.lines]


@pytest.fixture(scope="module")
def edges() -> dict[str, list[int]]:
    """Behind how many characters an ordinary one begins a line, and ends one: there a mark must make a difference.

    One mark of each kind is tried behind any number of characters.
    """
    lines = {before: around(before, "中") for before in range(1, 60)}
    found = {
        "begins": [before for before in lines if any(line.startswith("中") for line in lines[before])],
        "ends": [before for before in lines if any(line.endswith("中") for line in lines[before])],
    }
    assert all(len(places) >= 2 for places in found.values())
    return found


@pytest.mark.parametrize("mark", "（「『【〈《〔｛‘“([{«")
def test_no_line_ends_with_a_mark_that_opens(edges, mark):
    for before in edges["ends"] if mark != "（" else range(1, 60):
        lines = around(before, mark)
        assert not [line for line in lines if line.endswith(mark)], before
        assert "".join(lines).count(mark) == 1


@pytest.mark.parametrize("mark", "、。，．！？；：）」』】〉》〕｝’”…ー々ッャュョ)]}!?.,;:%»")
def test_no_line_begins_with_a_mark_that_closes(edges, mark):
    for before in edges["begins"] if mark not in "、。）" else range(1, 60):
        assert not [line for line in around(before, mark) if line.startswith(mark)], before


def test_a_long_segment_is_broken_at_the_ends_of_sentences_and_clauses():
    found = cues([segment(0, 20, SPEECH)])
    assert len(found) <= 4
    assert found[0].start == 0 and found[-1].end == 20
    ends = [cue.lines[-1][-1] for cue in found]
    assert "." in ends[:-1], "the end of the first sentence is an end of a cue"


def test_a_cue_begins_and_ends_with_its_words_where_their_times_are_known():
    one = spoken(10, SPEECH, each=0.3, pauses={22: 2.0})
    found = cues([one])
    starts = {word.start for word in one.words}
    assert all(cue.start in starts for cue in found)
    assert found[-1].end == one.end
    after_pause = one.words[22].start
    assert any(cue.start == after_pause for cue in found), "a pause is where the picture of the text changes"


def test_words_without_spaces_between_them_have_times_too():
    words = [Word(index, index + 1, text, 0.9) for index, text in enumerate(["これは", "日本語", "の字幕", "です。"])]
    found = cues([segment(0, 4, "これは日本語の字幕です。", words)])
    assert texts(found) == ["これは日本語の字幕です。"]
    assert (found[0].start, found[0].end) == (0, 4)


def test_a_word_that_is_nowhere_in_the_text_moves_nothing():
    words = [Word(9, 99, "other", 0.9)]
    assert cues([segment(0, 2, "a text", words)]) == [Cue(0, 2, ("a text",))]


# -- how long ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "segments, until, expected",
    [
        ([(0, 3, "Plain.")], None, [(0, 3)]),
        ([(0, 0.3, "Oh."), (5, 6, "Well.")], None, [(0, 1), (5, 6)]),  # stays on while nothing follows
        ([(0, 0.3, "A" * 40), (5, 6, "Well.")], None, [(0, 2), (5, 6)]),  # longer where there is more to read
        ([(0, 0.3, "Oh."), (0.8, 3, "Well.")], None, [(0, 3)]),  # too soon over: shown with its neighbour
        ([(0, 2, "Well."), (2.1, 2.4, "Oh.")], None, [(0, 2.4)]),
        ([(0, 0.3, "Oh." * 20), (0.8, 3, "Well." * 10)], None, [(0, 0.8), (0.8, 3)]),  # unless that is too much
        ([(0, 25, "Slow.")], None, [(0, 7)]),
        ([(9, 9.2, "End.")], None, [(9, 9.2)]),  # nobody knows how long the recording is
        ([(9, 9.2, "End.")], 9.5, [(9, 9.5)]),
        ([(9, 9.2, "End.")], 60, [(9, 10)]),
        ([(1, 3, "One."), (2, 4, "Two.")], None, [(1, 3), (3, 4)]),  # never two at once
        ([(1, 1, "Now.")], None, [(1, 1.001)]),
        ([(0, 2, "  "), (2, 4, "Two.")], None, [(2, 4)]),
        ([], 10, []),
    ],
)
def test_how_long_cues_stay(segments, until, expected):
    found = cues([segment(*one) for one in segments], until=until)
    assert [(cue.start, cue.end) for cue in found] == expected


# -- files -------------------------------------------------------------------------------------------------------

TWO = [Cue(0.0, 1.5, ("A <b> & c", "--> d")), Cue(363_661.25, 363_662.0, ("Late",))]


def test_srt():
    assert to_srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:01,500\nA <b> & c\n→ d\n\n2\n101:01:01,250 --> 101:01:02,000\nLate\n"
    )
    assert to_srt([]) == ""


def test_vtt():
    assert to_vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nA &lt;b&gt; &amp; c\n--&gt; d\n\n"
        "101:01:01.250 --> 101:01:02.000\nLate\n"
    )
    assert to_vtt([]) == "WEBVTT\n"


def test_tsv():
    rows = [segment(0, 1.2345, "a\tb\n c"), segment(360_000.5, 360_001, "\x1b[31mred\ud800")]
    assert to_tsv(rows) == "start\tend\ttext\n0\t1234\ta b c\n360000500\t360001000\t\ufffd[31mred\ufffd\n"


def test_text_that_would_move_the_cursor():
    assert texts(cues([segment(0, 1, "a\x1b[2Jb\x00\ud800")])) == ["a\ufffd[2Jb\ufffd\ufffd"]


def test_files_are_valid_utf_8():
    to_srt(cues([segment(0, 1, "\ud800")])).encode("utf-8")
