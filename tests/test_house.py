"""The rules of the house: what keeps the code findable, safe to run and quick to start, and the README true."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from typer.main import get_command

from mmcli.cli import app
from mmcli.cli.commands import COMMANDS
from mmcli.cli.environment import Environment
from mmcli.errors import UsageError
from mmcli.hub.quantized import parameter_count
from mmcli.hub.safetensors_files import read_header

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "mmcli").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST = 400  # lines

# What a model is made of needs torch as it is imported; everything else must start in milliseconds.
NEEDS_TORCH = ("mmcli.engine", "mmcli.layers", "mmcli.models", "mmcli.training")
NEEDS_TORCH += ("mmcli.hub.save", "mmcli.hub.weights", "mmcli.hub.array_files", "mmcli.speech.silero_vad")
STARTS_AT_ONCE = ("mmcli.models.registry", "mmcli.models.family", "mmcli.models.loaded", "mmcli.models.offered")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, with the names taken from it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def calls(path: Path) -> Iterator[tuple[int, str, dict[str | None, str]]]:
    """Every call in a file: its line, what is called, and its settings by name, as they are written."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_files_are_short_enough_to_read():
    lines = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in (*SOURCES, *TESTS)}
    assert {name: count for name, count in lines.items() if count >= LONGEST} == {}


# -- the floors --------------------------------------------------------------------------------------------------

# From the ground up: a part imports from the floors below its own, and from itself.
FLOORS = (
    ("errors",),
    ("assets", "boxes", "escape", "example", "offline", "startup", "types", "version"),
    ("decode", "rle"),
    ("hub", "media"),
    ("engine", "speech"),
    ("layers",),
    ("models",),
    ("output",),
    ("tasks",),
    ("batch",),
    ("api",),
    ("training",),
    ("cli",),
    ("__main__",),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
ALL = {module_of(path): path for path in SOURCES}


def part_of(module: str) -> str:
    """The folder, or the file beside the folders, that a module belongs to; `mmcli` itself only shows the API."""
    return module.split(".")[1] if "." in module else "api"


def arrows(path: Path) -> set[str]:
    """Our modules that a file needs: imported wherever in it, for types alone too, or named as text to be imported."""
    named = [node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)]
    named = [text.partition(":")[0] for text in named if isinstance(text, str) and text.startswith("mmcli.")]
    found = {name if name in ALL else name.rpartition(".")[0] for name in (*imports(path), *named)}
    return (found & ALL.keys()) - {module_of(path)}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """A sentence for each import of what is not on a lower floor."""
    crossing = [(one, other) for one in sorted(graph) for other in sorted(graph[one]) if part_of(one) != part_of(other)]
    return [
        f"{one} imports {other}, but {part_of(other)} is not below {part_of(one)}"
        for one, other in crossing
        if FLOOR[part_of(other)] >= FLOOR[part_of(one)]
    ]


def circle(graph: dict[str, set[str]]) -> str:
    """One circle of imports, as a drawing; "" where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return ""


def test_every_part_is_on_a_floor():
    assert {part_of(module) for module in ALL} - FLOOR.keys() == set(), "give it a place in FLOORS"


def test_imports_lead_downwards():
    found = upward({module: arrows(path) for module, path in ALL.items()})
    assert not found, "\n".join(found)


def test_imports_form_no_circle():
    found = circle({module: arrows(path) for module, path in ALL.items()})
    assert not found, found


def test_circles_and_upward_imports_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) in (
        "a → b → c → a",
        "b → c → a → b",
        "c → a → b → c",
    )
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == ""
    up, beside, down = {"mmcli.decode.x": {"mmcli.cli.y"}}, {"mmcli.hub.x": {"mmcli.media.y"}}, {"mmcli.cli": {"mmcli"}}
    assert upward(up) == ["mmcli.decode.x imports mmcli.cli.y, but cli is not below decode"]
    assert upward(beside) and not upward(down)
    assert arrows(ROOT / "mmcli/models/registry.py") >= {"mmcli.errors", "mmcli.models.family", "mmcli.models.whisper"}


# -- what is imported --------------------------------------------------------------------------------------------


def test_no_other_implementation_is_leaned_on():
    """But to measure answers by, pycocotools: there another implementation would prove nothing."""
    foreign = ("transformers", "timm", "diffusers", "accelerate", "peft", "pycocotools", "torchvision")
    assert [(name_of(path), m) for path in SOURCES for m in imports(path) if is_within(m, foreign)] == []
    named = [path for path in SOURCES if any("pycocotools." in text for _, text in texts(path))]
    assert set(map(name_of, named)) <= {"mmcli/training/metrics/boxes.py", "mmcli/training/evaluate.py"}


def test_no_pickle_is_read_in_any_disguise():
    """Training may read its own tensors with torch.load, as one part may those of checkpoints: tensors only."""
    pickles = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    assert [(name_of(path), m) for path in SOURCES for m in imports(path) if is_within(m, pickles)] == []
    for path in SOURCES:
        for line, called, settings in calls(path):
            place = f"{name_of(path)}:{line}"
            assert settings.get("allow_pickle", "False") == "False", place
            if called == "torch.load":
                assert module_of(path).startswith(("mmcli.training.", "mmcli.hub.pickle_files")), place
                assert settings.get("weights_only") == "True", place


def test_no_text_is_run_as_code():
    for path in SOURCES:
        for line, called, settings in calls(path):
            assert called not in ("eval", "exec", "compile"), f"{name_of(path)}:{line}"
            assert "trust_remote_code" not in settings, f"{name_of(path)}:{line}"


def test_nothing_outside_a_familys_folder_knows_the_family():
    """Except the registry, which names modules as text, and the recipe that trains a bundled model."""
    knowing = []
    for path in SOURCES:
        for module in imports(path):
            match = re.match(r"mmcli\.models\.(\w+)", module)
            if match and (ROOT / "mmcli/models" / match[1]).is_dir():  # what is no folder is shared among families
                own = (f"mmcli.models.{match[1]}", f"mmcli.training.recipes.{match[1]}")
                knowing += [] if is_within(module_of(path), own) else [(name_of(path), module)]
    assert knowing == []


# Where a model may be called by its name: the table of families and that of known repositories.
NAMING = ("mmcli/models/registry.py", "mmcli/hub/known.py", "mmcli/hub/known_models.py")
FAMILY_FOLDERS = sorted(path.parent for path in (ROOT / "mmcli/models").glob("*/__init__.py"))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """What a file calls things, and every text in it; docstrings only where they are help pages."""
    tree = ast.parse(path.read_text("utf-8"))
    quiet = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and "cli" not in path.parts}
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "value"):
            if isinstance(text := getattr(node, field, None), str) and id(node) not in quiet:
                yield getattr(node, "lineno", 0), text


def test_no_family_is_named_outside_its_folder():
    """So that help texts and messages go by what a family declares, and the next one needs no search for the last."""
    spellings = "|".join(re.sub(r"(?<=[a-z])(?=\d)", "[-_ ]?", folder.name) for folder in FAMILY_FOLDERS)
    names = re.compile(rf"(?<![a-z])({spellings})(?![a-z])", re.IGNORECASE)
    assert all(map(names.search, ("Gemma 3n", "google/paligemma2-3b", "mmcli-nano", "load_whisper", "gemma-3n-E2B")))
    assert not any(map(names.search, ("GemmaNorm", "nanoseconds", "nan")))
    homes = (*FAMILY_FOLDERS, ROOT / "mmcli/training/recipes")
    outside = [path for path in SOURCES if not any(path.is_relative_to(home) for home in homes)]
    found = {name_of(path): [f"{line}: {text}" for line, text in texts(path) if names.search(text)] for path in outside}
    assert {name for name, lines in found.items() if lines} >= set(NAMING)
    assert {name: lines for name, lines in found.items() if lines and name not in NAMING} == {}


def test_what_is_no_family_knows_no_grammar():
    """Answers are read, and tokens restricted, by what a family declares: objects, automata, whole pixels of boxes."""
    neutral = ["mmcli.decode.objects", "mmcli.decode.automaton"]
    neutral += ["mmcli.decode.locations.pixel_box", "mmcli.decode.locations.DIVISORS"]  # what --loc-divisor offers
    knowing = [
        (name_of(path), module)
        for path in SOURCES
        if not is_within(module_of(path), ("mmcli.decode", "mmcli.models", "mmcli.training"))
        for module in imports(path)
        if is_within(module, ("mmcli.decode",)) and not is_within(module, neutral)
    ]
    assert knowing == []


def test_importing_what_is_no_model_imports_no_torch():
    light = [
        module
        for module in map(module_of, SOURCES)
        if (not is_within(module, NEEDS_TORCH) or module in STARTS_AT_ONCE) and module != "mmcli.__main__"
    ]
    assert {"mmcli.cli.app", "mmcli.tasks.result", "mmcli.decode.segments", "mmcli.media.image"} <= set(light)
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = [m for m in ('torch', 'torchaudio', 'transformers', 'huggingface_hub') if m in sys.modules]\n"
        "    if heavy: sys.exit(f'{name} imports {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *light], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_streams_own_module_writes_to_them():
    """So that what is written is made fit for a terminal; a child process speaks to its parent."""
    own = ("mmcli.cli.environment", "mmcli.cli.libraries", "mmcli.cli.confined", "mmcli.__main__", "mmcli.training")
    spoken = ("print", "sys.stdout.write", "sys.stderr.write", "typer.echo", "typer.secho", "warnings.warn")
    others = [path for path in SOURCES if not is_within(module_of(path), own) and "template_process" not in path.name]
    writing = [f"{name_of(path)}:{line}" for path in others for line, called, _ in calls(path) if called in spoken]
    assert writing == []


# -- what is said ------------------------------------------------------------------------------------------------


def test_everything_public_says_what_it_is():
    """Modules, their classes and functions; a method may leave it to its class, and a script's steps to the script."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
        public = [] if "training" in path.parts else public
        silent += [name_of(path)] if tree.body and not ast.get_docstring(tree) else []
        silent += [f"{name_of(path)}: {node.name}" for node in public if not ast.get_docstring(node)]
    assert silent == []


PAGES = [ROOT / name for name in ("README.md", "examples/README.md", "mmcli/assets/nano/MODEL_CARD.md")]


def page(path: Path) -> str:
    if not path.is_file():
        pytest.skip(f"there is no {name_of(path)}")
    return path.read_text("utf-8")


def commands(text: str) -> Iterator[list[str]]:
    """Every simple command of a shell text, as words: what stands between pipes, semicolons, && and redirections."""
    for line in text.splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                yield words
                words = []
            else:
                words.append(word)


def shown(text: str) -> list[list[str]]:
    """The commands in a page's fenced blocks; in one that shows a session, those behind its prompt."""
    found = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = [line for line in block.splitlines() if kind != "console" or line.startswith("$ ")]
        if kind in ("sh", "bash", "console"):
            found += [words for words in commands("\n".join(lines)) if words]
    return found


def check(words: list[str]) -> None:
    """Parse an mmcli command line as the real one does, all but running it. Raises what is wrong with it."""
    command, arguments, name = get_command(app.app), words[1:], "mmcli"
    while True:
        context = command.make_context(name, list(arguments), obj=Environment.real())
        if not hasattr(command, "resolve_command"):
            return
        left = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
        name, command, arguments = command.resolve_command(context, left)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_on_a_page_are_ones_that_mmcli_takes(path):
    own = [words for words in shown(page(path)) if words[0] == "mmcli"]
    assert own or path != PAGES[0]
    for words in own:
        try:
            check(words)
        except app.COMPLAINT as complaint:
            pytest.fail(f"{shlex.join(words)}: {complaint.format_message()}")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_commands_in_the_help_are_ones_that_mmcli_takes(name):
    whole = get_command(app.app)
    epilog = (whole.get_command(None, name) if name else whole).epilog
    examples = [line.strip() for line in epilog.splitlines() if line.startswith("  ")]
    own = [words for line in examples for words in commands(line) if words[:1] == ["mmcli"]]
    assert own
    for words in own:
        check(words)


def test_an_unknown_option_or_command_on_a_page_is_found():
    for line in ("mmcli caption a.jpg --no-such", "mmcli captoin a.jpg", "mmcli models pulll x", "mmcli detect"):
        with pytest.raises((app.COMPLAINT, UsageError)):
            check(line.split())


def test_what_is_installed_by_a_page_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    wanted = set(re.findall(r"pip install '?(?:\.|mmcli)\[(\w+)\]", "\n".join(map(page, PAGES[:1]))))
    assert wanted and wanted <= extras.keys()


def test_images_that_the_first_command_names_are_there():
    first = next(words for words in shown(page(PAGES[0])) if words[0] == "mmcli")
    assert [word for word in first if word.endswith(".jpg")]
    assert all((ROOT / word).is_file() for word in first if word.endswith(".jpg"))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page(path))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", (PAGES[0], PAGES[2]), ids=name_of)
def test_a_page_says_how_large_nano_is(path):
    """The number that `inspect` and `models info` count; a page may tell of the mask decoder beside it."""
    counted = parameter_count(ROOT / "mmcli/assets/nano")
    assert set(re.findall(r"([\d.]+)\s+million\s+parameters", page(path))) == {f"{counted / 1e6:.1f}"}
    beside = sum(info.count for info in read_header(ROOT / "mmcli/assets/nano/mask_decoder.safetensors").values())
    assert set(re.findall(r"codebook\s+of\s+([\d.]+)\s+million", page(path))) <= {f"{beside / 1e6:.1f}"}
