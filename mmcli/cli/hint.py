"""One line after a caption of the bundled model: that there are better ones, and how to try the best that fits here."""

import contextlib
from collections.abc import Mapping
from datetime import date

from mmcli.cli.config_file import Config, read_config
from mmcli.cli.environment import Environment
from mmcli.cli.user_folders import state_folder
from mmcli.errors import UsageError
from mmcli.hub.known import IMAGE_MODEL
from mmcli.output.tables import bytes_text

VARIABLE = "MMCLI_HINTS"
OFF = ("0", "off", "no", "false")


def hints_wanted(variables: Mapping[str, str], config: Config) -> bool:
    """Whether hints may be shown: MMCLI_HINTS decides, else the configuration file."""
    value = variables.get(VARIABLE, "").strip().lower()
    return value not in OFF if value else config.hints


def hint(environment: Environment, model: str, example: str, today: date | None = None) -> None:
    """Name the best open model for captions that fits this machine, once a day, to people only.

    Nothing is said in a pipe, with --quiet, where the user has chosen a model or wants no hints. `example` is the
    command line to try without its model.
    """
    if model != IMAGE_MODEL or environment.model_from or environment.quiet:
        return
    if not (environment.stderr_tty and environment.stdout_tty):
        return
    try:
        if not hints_wanted(environment.variables, read_config(environment.variables)):
            return
    except UsageError:  # the command that reads the file for its model says so
        return
    if _said(environment.variables, today or date.today()):
        return
    from mmcli.engine.machine import this_machine
    from mmcli.hub.here import models_here
    from mmcli.models.suggest import best_open

    best = best_open("caption", this_machine(), models_here())
    if best is not None:
        size = "here already" if best.here else f"{bytes_text(best.model.bytes)} to download"
        line = f"{IMAGE_MODEL} is small and often wrong; {best.model.name} ({best.model.licence}, {size}) sees more"
        environment.note(f"mmcli: {line}. Try: {best.line(example)}")


def _said(variables: Mapping[str, str], today: date) -> bool:
    """Whether hints were shown today, or that cannot be found out; from now on they were.

    That the note of it cannot be read or written is not said: a hint is not worth an error. None is shown then, since
    it would be shown every time.
    """
    path = state_folder(variables) / "hint"
    with contextlib.suppress(OSError, ValueError):
        if path.is_file() and path.read_text("utf-8")[:10] == today.isoformat():
            return True
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(f"{today.isoformat()}\n", "utf-8")
    except OSError:
        return True
    return False
