"""Of what kinds records are; a field of them, and a form in which they are written, has those that it is for."""

IMAGE, AUDIO, FAILED = frozenset({"image"}), frozenset({"audio"}), frozenset({"failed"})
ANSWER = IMAGE | AUDIO
