"""Lines typed on the terminal: with editing, completion and a history where it is a real one."""

from collections.abc import Callable

from mmcli.cli.environment import Environment
from mmcli.cli.history import History, history_path

PROMPT = "> "
GOES_ON = "... "


class Keyboard:
    """Asks for lines. `complete` gives the whole lines that one begun may become."""

    def __init__(self, environment: Environment, complete: Callable[[str], list[str]]):
        self._environment = environment
        self._history: History | None = None
        if environment.edits_lines:
            self._set_up(complete)

    def _set_up(self, complete: Callable[[str], list[str]]) -> None:
        try:
            import readline  # importing it gives input() its editing; whoever is not asked need not wait for it
        except ImportError:  # Windows: its consoles edit lines and remember them by themselves
            return

        def choice(line: str, number: int) -> str | None:
            choices = complete(line)
            return choices[number] if number < len(choices) else None

        readline.set_completer_delims("")  # not words, but the line as a whole
        readline.set_completer(choice)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        path = history_path(self._environment.variables)
        if path is not None:
            self._history = History(path)
            try:
                for line in self._history.lines():
                    readline.add_history(line)
            except OSError as error:
                self._give_up(error)

    def line(self) -> str | None:
        """What was typed, without its line break; None at the end. A line that ends in a backslash goes on in the next.

        Raises KeyboardInterrupt. A line that begins with a slash is a command and never goes on.
        """
        line = self._one(PROMPT)
        while line and line.endswith("\\") and not line.startswith("/"):
            more = self._one(GOES_ON)
            line = f"{line[:-1]}\n{more or ''}"
            if more is None:
                break
        return line

    def _one(self, prompt: str) -> str | None:
        line = self._environment.ask(prompt)
        if line is None:
            return None
        line = line.rstrip("\r\n")
        if self._history is not None:
            try:
                self._history.add(line)
            except OSError as error:
                self._give_up(error)
        return line

    def _give_up(self, error: OSError) -> None:
        self._history = None
        self._environment.log(f"mmcli: the history cannot be kept: {error.strerror or error}")
