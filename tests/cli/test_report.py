"""mmcli report: one page of results, which asks nobody for anything, in a real browser where there is one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import mmcli

from mmcli.batch.manifest import Entry, Manifest, Stamp
from mmcli.output.record import to_dict
from mmcli.output.schema import Object, Record
from mmcli.rle import encode
from mmcli.types import Segment

EXAMPLES = Path(__file__).parents[2] / "examples"
HOSTILE = "</script><script>alert(1)</script><!-- <b>\u2028\x1b[31m"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


def detected(name, *objects, **more) -> Record:
    return Record(task="detect", source=name, model="nano", width=451, height=300, objects=objects, **more)


def thing(label, box=(10.0, 10.0, 200.0, 150.0), **more) -> Object:
    return Object(label=label, box=box, raw_box=(), **more)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """Records of a photograph, a recording, a failure and of one with hostile names, in a folder without them."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    shutil.copy(EXAMPLES / "cat.jpg", "in/cat.jpg")
    shutil.copy(EXAMPLES / "jfk.flac", "in/jfk #1.flac")
    mask = np.zeros((300, 451), bool)
    mask[20:100, 30:150] = True
    transcript = Record(
        task="transcribe",
        source="in/jfk #1.flac",
        model="whisper-base",
        seconds=11.0,
        text=" Ask not",
        segments=(Segment(start=0.5, end=2.0, text=" Ask not"),),
        timestamps="segment",
    )
    records = [
        detected("in/cat.jpg", thing("cat", probability=0.9, mask=encode(mask)), thing("dog", probability=0.2)),
        transcript,
        Record(task="detect", source="in/none.jpg", model="nano", error="in/none.jpg does not exist"),
        detected(HOSTILE, thing(HOSTILE, score=-0.5)),
    ]
    write("all.jsonl", records)
    return records


def write(name, records):
    Path(name).write_text("".join(json.dumps(to_dict(record)) + "\n" for record in records), "utf-8")


def data(page="report.html") -> dict:
    text = Path(page).read_text("utf-8")
    return json.loads(text.split('<script id="data" type="application/json">')[1].split("</script>")[0])


def test_a_page_holds_all_results():
    done = mmcli("report", "all.jsonl", "--title", "Mine & yours")
    assert done.code == 0 and done.out == "" and "4 results in report.html" in done.err
    found = data()
    cat, transcript, failed, hostile = found["items"]
    assert found["title"] == "Mine & yours" and found["sets"] == []
    assert cat["href"] == "in/cat.jpg" and len(cat["thumb"]) > 2000 and "thumb" not in hostile
    assert cat["objects"][0]["label"] == "cat" and cat["objects"][0]["score"] == 0.9
    xs, ys = cat["objects"][0]["points"][::2], cat["objects"][0]["points"][1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == (67, 333, 67, 333)  # thousandths of the sides
    assert transcript["segments"] == [[0.5, 2.0, " Ask not"]] and transcript["href"] == "in/jfk%20%231.flac"
    assert failed["error"] == "in/none.jpg does not exist" and hostile["name"] == HOSTILE


def test_nothing_in_the_data_ends_the_script():
    mmcli("report", "all.jsonl")
    text = Path("report.html").read_text("utf-8")
    assert text.count("<script") == 2 and "alert(1)" in text and "<b>" not in text


def test_results_come_from_stdin_and_from_a_folder(results):
    assert mmcli("report", "-", "-o", "a.html", stdin=Path("all.jsonl").read_bytes()).code == 0
    with Manifest(Path("out")) as manifest:
        for number, record in enumerate(results):
            manifest.put(Entry(str(number), Stamp(), "recipe", (), to_dict(record)))
    assert mmcli("report", "out", "-o", "b.html").code == 0
    assert [item["name"] for item in data("a.html")["items"]] == [item["name"] for item in data("b.html")["items"]]


def test_two_results_are_compared():
    same, moved = thing("cat"), thing("dog", (300.0, 200.0, 400.0, 290.0))
    write(
        "a.jsonl", [detected("1", same, thing("dog")), detected("2", text="x"), detected("3", same, text="<loc0001>")]
    )
    near = thing("cat", (12.0, 12.0, 205.0, 150.0))
    write("b.jsonl", [detected("3", near, text="<loc0002>"), detected("1", near, moved), detected("4", same)])
    assert mmcli("report", "--compare", "a.jsonl", "b.jsonl").code == 0
    items = {item["name"]: item for item in data()["items"]}
    assert data()["sets"] == ["a.jsonl", "b.jsonl"] and set(items) == {"1", "2", "3", "4"}
    assert [(one["label"], one["in"]) for one in items["1"]["objects"]] == [("cat", "ab"), ("dog", "a"), ("dog", "b")]
    assert [items[name]["differs"] for name in "1234"] == [True, True, False, True]
    assert not any("other" in items[name] for name in "134"), "places are no text to read"


def test_of_captions_the_texts_are_compared():
    captions = [Record(task="caption", source=name, model="nano", width=9, height=9, text=name) for name in "123"]
    write("a.jsonl", captions)
    write("b.jsonl", [captions[0], replace(captions[1], text="else"), replace(captions[2], text=None, error="no")])
    assert mmcli("report", "--compare", "a.jsonl", "b.jsonl").code == 0
    assert [(one.get("other"), one["differs"]) for one in data()["items"]] == [
        (None, False),
        ("else", True),
        ("no", True),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "No results were named"),
        (["none.jsonl"], 1, "none.jsonl does not exist"),
        (["in"], 1, "No run of mmcli wrote into in"),
        (["in/cat.jpg"], 1, "Line 1 of in/cat.jpg is no JSON"),
        (["list.jsonl"], 1, "Line 2 of list.jsonl is no record"),
        (["old.jsonl"], 1, "Line 1 of old.jsonl: a record of schema 1 cannot be read"),
        (["empty.jsonl"], 1, "empty.jsonl has no results"),
        (["all.jsonl", "-o", "page.txt"], 2, "--output page.txt is no page"),
        (["all.jsonl", "--compare"], 2, "--compare takes two results, not 1"),
        (["page.html", "-o", "page.html"], 2, "would write over page.html"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_sentence(arguments, code, said):
    Path("list.jsonl").write_text("\n[]\n")
    Path("old.jsonl").write_text('{"schema": 1}\n')
    Path("empty.jsonl").write_text("\n")
    Path("page.html").write_text("{}")
    done = mmcli("report", *arguments)
    assert done.code == code and said in done.err and len(done.err.splitlines()) == 1
    assert not Path("report.html").exists() and not list(Path().glob(".mmcli-*"))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_in_a_browser_the_page_searches_filters_and_opens():
    sync_api = pytest.importorskip("playwright.sync_api")
    mmcli("report", "all.jsonl")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--mute-audio"])
        page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="dark")
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.goto(Path("report.html").absolute().as_uri())
        assert page.locator(".card").count() == 4
        assert page.evaluate("document.documentElement.className") == "dark"
        page.keyboard.press("/")
        page.keyboard.type("ask NOT")
        assert page.locator(".card").count() == 1 and "Ask not" in page.inner_text(".card")
        page.fill("#search", "")
        page.press("#search", "Escape")
        page.get_by_role("button", name="dog 1").click()
        assert page.locator(".card").count() == 1 and page.locator(".card rect").count() == 1
        page.locator("#score").fill("99")  # above what the dog has
        assert page.inner_text("#list") == "Nothing matches."
        page.locator("#score").fill("0")
        page.get_by_role("button", name="dog 1").click()  # and from there on by keyboard
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.locator("dialog[open] audio").get_attribute("src") == "in/jfk%20%231.flac"
        page.locator(".segment").click()  # the player goes there
        page.wait_for_function("document.querySelector('audio').currentTime >= 0.5")
        page.wait_for_selector(".segment.now")
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        browser.close()
    assert faults == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
