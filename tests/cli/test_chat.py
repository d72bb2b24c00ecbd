import numpy as np
from audio_files import save
from command import mmcli

from mmcli.cli.chat_runner import StreamPrinter

SHORT = ("--max-tokens", 4)


def printer(pieces: dict[int, bytes]):
    written = []

    def decode(ids):
        return b"".join(pieces[i] for i in ids).decode("utf-8", "replace")

    return StreamPrinter(decode, written.append), written


def test_text_is_told_as_it_comes():
    add, written = printer({0: b"a ", 1: b"cat"})
    for token in (0, 1):
        add(0, token)
    add.end()
    assert written == ["a ", "cat", "\n"]


def test_half_a_character_waits_for_its_other_half():
    add, written = printer({0: b"\xc3", 1: b"\xa9!"})
    for token in (0, 1):
        add(0, token)
    assert written == ["é!"]


def test_what_never_becomes_whole_is_told_at_the_end():
    add, written = printer({0: b"x", 1: b"\xc3"})
    for token in (0, 1):
        add(0, token)
    add.end()
    assert "".join(written) == "x\N{REPLACEMENT CHARACTER}\n"


def test_control_characters_do_not_reach_the_terminal():
    add, written = printer({0: b"\x1b[31mred\n"})
    add(0, 0)
    assert written == ["\N{REPLACEMENT CHARACTER}[31mred\n"]


def test_one_question_one_answer(album, tiny):
    done = mmcli("chat", "album/b.jpg", "-m", "what is it?", "--model", tiny, *SHORT)
    assert done.code == 0 and done.out.count("\n") == 1


def test_a_piped_question_is_the_message(album, tiny):
    asked = mmcli("chat", "album/b.jpg", "-m", "what is it?", "--model", tiny, "--json", *SHORT).records
    piped = mmcli("chat", "album/b.jpg", "--model", tiny, "--json", *SHORT, stdin=b"what is it?\n").records
    assert asked[0]["prompt"] == piped[0]["prompt"] == "answer en what is it?"
    assert asked[0]["text"] == piped[0]["text"]


def test_a_streamed_answer_is_the_same_text(album, tiny):
    arguments = ("chat", "album/b.jpg", "-m", "what is it?", "--model", tiny, "--max-tokens", "40")
    assert mmcli(*arguments, stdout_tty=True).out == mmcli(*arguments).out


def test_several_images_are_seen_at_once(album, tiny):
    [record] = mmcli("chat", "album/b.jpg", "album/sub/c.png", "-m", "same?", "--model", tiny, "--json", *SHORT).records
    assert record["source"] == ["album/b.jpg", "album/sub/c.png"]


def test_no_image_is_needed_where_the_model_can(tiny, album):
    [record] = mmcli("chat", "-m", "what?", "--model", tiny, "--json", *SHORT).records
    assert record["source"] is None and record["width"] is None


def test_a_prompt_of_ones_own_needs_no_question(album, tiny):
    [record] = mmcli("chat", "album/b.jpg", "--prompt", "caption en", "--model", tiny, "--json", *SHORT).records
    assert record["prompt"] == "caption en"


def test_a_conversation_without_a_real_terminal_still_goes_line_by_line(album, tiny):
    questions = b"what?\n\n/image album/sub/c.png\nand now?\n"
    done = mmcli("chat", "album/b.jpg", "--model", tiny, "--json", *SHORT, stdin=questions, stdin_tty=True)
    assert [record["source"] for record in done.records] == ["album/b.jpg", "album/sub/c.png"]
    assert done.err.startswith("> ") or "\n> " in done.err


def test_an_image_that_cannot_be_read_is_a_record_too(album):
    done = mmcli("chat", "nothere.jpg", "-m", "what?", "--json")
    assert done.code == 1 and "nothere.jpg does not exist" in done.err
    [record] = done.records
    assert (record["task"], record["source"]) == ("chat", "nothere.jpg") and "does not exist" in record["error"]


def test_a_recording_for_a_model_without_ears_is_a_sentence(album, tiny):
    save("talk.mp3", np.ones(16_000, np.float32), rate=16_000)
    done = mmcli("chat", "album/b.jpg", "talk.mp3", "-m", "what is said?", "--model", tiny, *SHORT)
    assert (done.code, done.out) == (3, "") and "takes no audio. Choose a model that does" in done.err


def test_a_conversation_survives_what_cannot_be_done(album, tiny):
    lines = b"/image 'unbalanced\n/image nothere.jpg\n/nonsense\nwhat?\n"
    done = mmcli("chat", "album/b.jpg", "--model", tiny, "--json", *SHORT, stdin=lines, stdin_tty=True)
    assert done.code == 0 and [record["source"] for record in done.records] == ["album/b.jpg"]


def test_a_model_that_needs_an_image_says_so(album):
    done = mmcli("chat", "-m", "is there a cat?")
    assert (done.code, done.out) == (2, "")
    assert "nano answers questions about one picture, but none was given" in done.err
    done = mmcli("chat", "album/b.jpg", "album/sub/c.png", "-m", "is there a cat?")
    assert done.code == 2 and "one picture at a time, but 2" in done.err


def test_a_conversation_without_an_image_goes_on_when_one_comes(album):
    lines = b"is there a cat?\n/image album/b.jpg\nis there a cat?\n/clear\nis there a cat?\n"
    done = mmcli("chat", "--json", stdin=lines, stdin_tty=True, stderr_tty=True)
    assert done.code == 0 and [record["source"] for record in done.records] == ["album/b.jpg"]
    assert "nano needs a picture first: /image PATH\n" in done.err
    assert done.err.count("but none was given. Name one after mmcli chat, or with /image PATH in a conversation.") == 2
    assert "is forgotten, album/b.jpg too: /image or /audio brings it back\n" in done.err
