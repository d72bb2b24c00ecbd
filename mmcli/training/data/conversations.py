"""Conversations: rows of `messages` with roles (the form of chat templates), or LLaVA's `conversations`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcli.example import Example, Exchange
from mmcli.hub.fields import shown
from mmcli.training.data.place import Place
from mmcli.training.data.rows import Row, Unusable
from mmcli.training.data.values import text

NAME = "conversations"
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "model", "model": "model", "gpt": "model"}
MARKS = {"<image>": "image", "<audio>": "audio"}  # where LLaVA's texts have a picture
MOST_TURNS = 1000


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return "messages" in row or "conversations" in row


def examples(row: Row, where: str, file: Path, place: Place) -> Iterator[Example]:
    """The example of a row: its pictures and recordings, which the first question shows, and its turns in order."""
    turns = _turns(row)
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
    roles = [role for role, _, _ in turns]
    if not turns or roles != ["user", "model"] * (len(turns) // 2):
        raise Unusable("its turns are not of user and assistant by turns, ending with the assistant's")
    if any(shows for _, _, shows in turns[1:]):
        raise Unusable("a picture or recording is shown after the first question, which cannot be learned")
    listed = {kind: _listed(row, kind) for kind in ("image", "audio")}
    shown_ = {kind: _shown(turns[0][2], kind, listed[kind]) for kind in listed}
    exchanges = tuple(
        Exchange(text(asked, "question"), text(said, "answer"))
        for (_, asked, _), (_, said, _) in zip(turns[::2], turns[1::2], strict=True)
    )
    yield Example(
        "chat",
        where,
        tuple(place.find(one, file.parent, file.parent / "images") for one in shown_["image"]),
        tuple(place.find(one, file.parent, what="recording") for one in shown_["audio"]),
        exchanges,
        questions=True,
        system=system,
    )


Shows = list[tuple[str, Any]]  # kinds, each with its path, or None for the next of the row's own list


def _turns(row: Row) -> list[tuple[str, str, Shows]]:
    """Each turn: whose it is, its text, and what it shows."""
    messages = row.get("messages", row.get("conversations"))
    if not isinstance(messages, list) or len(messages) > MOST_TURNS:
        raise Unusable(f"its messages are {shown(messages)} and not a list of at most {MOST_TURNS}")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise Unusable(f"a message is {shown(message)} and not a JSON object")
        role = message.get("role", message.get("from"))
        if not isinstance(role, str) or role not in ROLES:
            raise Unusable(f"the role {shown(role)} is none of {', '.join(ROLES)}")
        turns.append((ROLES[role], *_content(message.get("content", message.get("value")))))
    return turns


def _content(content: Any) -> tuple[str, Shows]:
    """The text of a message, and what it shows."""
    shows: Shows = []
    texts = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get("type") in ("image", "audio", "image_url", "input_audio"):
            kind = "audio" if "audio" in part["type"] else "image"
            place = part.get(part["type"], part.get(kind, part.get("path", part.get("url"))))
            shows.append((kind, place.get("url") if isinstance(place, dict) else place))
            continue
        words = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
        if not isinstance(words, str):
            raise Unusable(f"a part of a message is {shown(part)} and neither text nor a picture")
        for mark, kind in MARKS.items():
            shows += [(kind, None)] * words.count(mark)
            words = words.replace(mark, "")
        texts.append(words.strip())
    return "\n".join(filter(None, texts)), shows


def _listed(row: Row, kind: str) -> list[Any]:
    """The pictures or recordings that a row names beside its messages."""
    found = row.get(kind, row.get({"image": "images", "audio": "audios"}[kind]))
    return [] if found is None else found if isinstance(found, list) else [found]


def _shown(shows: Shows, kind: str, listed: list[Any]) -> list[Any]:
    """What the first question shows of a kind, by its path. Raises Unusable where marks and paths do not fit."""
    own = [place for one, place in shows if one == kind]
    if not own:  # a row may name its picture and mark it nowhere
        return listed
    left = list(listed)
    if own.count(None) != len(left):
        raise Unusable(f"its texts mark {own.count(None)} of {kind}, and it names {len(left)}")
    return [left.pop(0) if place is None else place for place in own]
