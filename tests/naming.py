"""Naming inputs in tests: what the arguments of a command line stand for."""

from pathlib import Path

from mmcli.media.sources import IMAGE_EXTENSIONS, Source, expand


def names(*arguments, **options) -> list[str]:
    options.setdefault("extensions", IMAGE_EXTENSIONS)
    return [source.name for source in expand(arguments, **options)]


def only(*arguments, **options) -> Source:
    options.setdefault("extensions", IMAGE_EXTENSIONS)
    (source,) = expand(arguments, **options)
    return source


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(path.encode("utf-8", "surrogateescape"))
