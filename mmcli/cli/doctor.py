"""`mmcli doctor`: whether mmcli works here, and on what."""

import math
import platform
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli.help import Command, plain
from mmcli.cli.options import LogOptions, device_option, dtype_option, option, spread
from mmcli.cli.start import begin, memory_of
from mmcli.errors import ExitCode, MmcliError
from mmcli.escape import escape_line
from mmcli.hub.known import AUDIO_MODEL, IMAGE_MODEL
from mmcli.output.json_text import to_json_line
from mmcli.output.tables import bytes_text, fit, table

if TYPE_CHECKING:
    import torch

    from mmcli.engine.inputs import Inputs
    from mmcli.models.loaded import Loaded

app = plain()
EPILOG = """\
Examples:

  mmcli doctor
  mmcli doctor --device mps
  mmcli doctor --json

The self-check runs the bundled models on the device and on the CPU in float32, with the same picture
or audio and prompt, and compares what comes out. The exit code is 0 where all is well and 3 where not."""

REQUIRED: tuple[str, ...] = ("torch", "torchaudio", "tokenizers", "safetensors", "numpy", "pillow", "av", "silero-vad")
REQUIRED += ("huggingface_hub", "jinja2", "typer", "rich")
EXTRAS = {
    "pillow-heif": "HEIC pictures: pip install 'mmcli[heic]'",
    "rapidocr": "mmcli read without a model: pip install 'mmcli[read]'",
    "textual-image": "--show: pip install 'mmcli[show]'",
}

# How far logits may stray from the CPU's in float32. They are of the order of ten; rounding alone was measured to move
# them by up to 1.9 in bfloat16 and int8, what a broken kernel does lies far above.
TOLERANCE = {"float32": 0.02, "bfloat16": 4.0, "float16": 0.5, "int8": 4.0}
CHECK_TOKENS = 24
CHECKED = {"check": IMAGE_MODEL, "audio_check": AUDIO_MODEL}  # key of the facts → the bundled model that is tried


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    device: Annotated[str, device_option("The device to check (default auto).")] = "auto",
    dtype: Annotated[str, dtype_option("The type to check (default auto).")] = "auto",
    json_: Annotated[bool, option("Output", "--json", help="Print one JSON object.")] = False,
    *,
    log: LogOptions,
) -> int:
    """Show versions and devices, and check the bundled models on this machine."""
    environment = begin(ctx, log)
    packages = {name: _version(name) for name in (*REQUIRED, *EXTRAS)}
    facts: dict[str, Any] = {
        "mmcli": _version("mmcli"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "missing": [name for name in REQUIRED if packages[name] is None],
        "devices": [],
    }
    facts |= dict.fromkeys(CHECKED, {"ok": False, "problem": "a required package is missing"})
    if not facts["missing"]:
        facts["devices"] = devices()
        for check, model in CHECKED.items():
            try:
                facts[check] = self_check(model, device, dtype)
            except MmcliError as error:
                environment.fail(error)
                facts[check] = {"ok": False, "problem": str(error)}
    environment.write(to_json_line(facts) if json_ else as_text(facts, environment.width))
    healthy = all(facts[check]["ok"] for check in CHECKED)
    return ExitCode.OK if healthy and not facts["missing"] else ExitCode.MODEL


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a fifth of what --help takes

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def devices() -> list[dict[str, Any]]:
    """Every device PyTorch can use here: its name, bytes of memory where known, the type for large models, and whether
    steps go through fused kernels."""
    import torch

    from mmcli.engine.device import choose_dtype
    from mmcli.layers import kernels

    found = [("cpu", f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        found += [(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(("mps", "Metal"))
    return [
        {
            "device": device,
            "name": name,
            "memory": memory_of(torch.device(device)),
            "dtype": str(choose_dtype("auto", torch.device(device))).removeprefix("torch."),
            "kernels": kernels.available(torch.device(device)),
        }
        for device, name in found
    ]


def self_check(model: str, device_name: str, dtype_name: str) -> dict[str, Any]:
    """Run a bundled model on a device and on the CPU in float32 → what was compared and whether it agrees.

    Both read the same tokens, those that the CPU chose, so that one early difference does not make all later ones.
    Raises ModelError where the model cannot run, UsageError where there is no such device.
    """
    import torch

    from mmcli.engine.device import choose_device
    from mmcli.hub.resolve import resolve
    from mmcli.models.load import load

    device = choose_device(device_name)
    checkpoint = resolve(model)
    reference = load(checkpoint, "cpu", "float32")
    tested = load(checkpoint, device, dtype_name)
    wanted, tokens = forced_logits(reference.model, check_inputs(reference), None)
    got, _ = forced_logits(tested.model, check_inputs(tested), tokens)
    allowed = torch.isfinite(wanted)
    difference = (wanted[allowed] - got[allowed]).abs().max().item()
    agree = (wanted.argmax(-1) == got.argmax(-1)).sum().item()
    dtype = "int8" if tested.quantised else str(tested.dtype).removeprefix("torch.")
    return {
        "model": model,
        "ok": bool(difference <= TOLERANCE[dtype]),  # False for NaN too
        "device": str(device),
        "dtype": dtype,
        "largest_difference": difference if math.isfinite(difference) else None,
        "tolerance": TOLERANCE[dtype],
        "tokens": len(tokens),
        "tokens_agree": agree,
    }


def check_inputs(loaded: "Loaded") -> "Inputs":
    """The image and the prompt, or the audio and the prompt, that a model is tried with."""
    import torch

    from mmcli.media.mixing import RATE
    from mmcli.speech.fallback import DecodingOptions

    processor = loaded.processor
    if processor.capabilities.images:
        return processor.inputs([[check_image()]], [processor.task_prompt("caption", "")])
    transcript_inputs = loaded.family.transcript_inputs if loaded.family else None
    assert transcript_inputs is not None, "a family that reads no pictures transcribes"
    with torch.inference_mode():
        return transcript_inputs(loaded, [check_audio(RATE)], DecodingOptions(language="en"))


def check_audio(rate: int) -> Any:
    """Two seconds that need no file: tones that glide up and swell like syllables. float32 [samples]."""
    import numpy as np

    time = np.arange(2 * rate) / rate
    glide = sum(np.sin(2 * np.pi * part * (110 + 40 * time) * time) / part for part in range(1, 12))
    return (0.1 * glide * np.sin(2 * np.pi * 2 * time) ** 2).astype(np.float32)


def check_image() -> Any:
    """An image that needs no file: coloured ramps with a disc and a square."""
    from PIL import Image, ImageDraw

    ramp = Image.linear_gradient("L")
    image = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))
    pen = ImageDraw.Draw(image)
    pen.ellipse((40, 60, 130, 150), fill=(230, 40, 40))
    pen.rectangle((150, 120, 230, 220), fill=(40, 60, 220))
    return image


def forced_logits(model: Any, inputs: Any, tokens: "list[int] | None") -> "tuple[torch.Tensor, list[int]]":
    """Logits [T, V] (float32, on the CPU) of one row for `tokens`, or for the likeliest ones where that is None."""
    import torch

    from mmcli.engine import cuda_graph

    weight = model.like
    inputs = inputs.to(weight.device, weight.dtype)
    count = CHECK_TOKENS if tokens is None else len(tokens)
    rows, chosen = [], []
    with torch.inference_mode():
        cache = model.new_cache(1, inputs.tokens.shape[1] + count)
        logits = model.prefill(inputs, cache)
        for step in range(count):
            rows.append(logits[0].float().cpu())
            chosen.append(int(logits[0].argmax()) if tokens is None else tokens[step])
            if step < count - 1:
                # As answers are written: on a GPU from a graph, through what kernels there are.
                logits = cuda_graph.step(model, torch.tensor([chosen[-1]], device=weight.device), cache)
    return torch.stack(rows), chosen


def as_text(facts: dict[str, Any], columns: int | None = None) -> str:
    """The facts for people, on a terminal of so many `columns`."""
    rows = [("mmcli", facts["mmcli"] or "not installed"), ("python", f"{facts['python']} ({sys.executable})")]
    rows.append(("platform", facts["platform"]))
    for name, found in facts["packages"].items():
        rows.append((name, found or (f"not installed; for {EXTRAS[name]}" if name in EXTRAS else "MISSING")))
    for device in facts["devices"]:
        memory = f", {bytes_text(device['memory'])}" if device["memory"] else ""
        kernels = ", through fused kernels" if device["kernels"] else ""
        rows.append((device["device"], f"{device['name']}{memory}; large models run in {device['dtype']}{kernels}"))
    return table(rows, columns) + "\n" + fit("".join(_verdict(facts[check]) for check in CHECKED), columns)


def _verdict(check: dict[str, Any]) -> str:
    if "problem" in check:
        return f"self-check: FAILED: {escape_line(check['problem'])}\n"
    verdict = "ok" if check["ok"] else "FAILED: do not trust answers from this device"
    difference = "no number" if check["largest_difference"] is None else f"{check['largest_difference']:.2g}"
    return (
        f"self-check: {verdict}\n"
        f"  {check['model']} on {check['device']} in {check['dtype']} against the CPU in float32, "
        f"{check['tokens']} tokens:\n"
        f"  largest difference of a logit {difference} (allowed {check['tolerance']:g}), "
        f"the same token {check['tokens_agree']} times of {check['tokens']}\n"
    )
