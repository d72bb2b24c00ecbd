"""The way to a Ray cluster, and how many workers there is room for."""

import logging
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mmcli.batch.ray_probe import GOOD, READY
from mmcli.errors import MachineError, UsageError
from mmcli.media.naming import printable

PATIENCE = 4.0  # seconds for a connection
BUSY = 30.0  # seconds for an answer to whoever is connected: a cluster at work takes its time
BESIDE_WEIGHTS = 1 << 30  # bytes that a worker takes: libraries, images, activations
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})")


@dataclass(frozen=True)
class Plan:
    """How many workers there are, and what each has for itself."""

    workers: int
    cpus: int
    gpus: float = 0.0


def plan(nodes: Sequence[Mapping[str, float]], device: str, memory: int, workers: int | None = None) -> Plan:
    """Workers for machines with these resources (CPU, GPU, memory in bytes): one a GPU where there are any.

    Else as many as there are cores and as have `memory` bytes each, sharing all cores; or `workers`, whatever there is
    now: a cluster may grow. Raises UsageError for a GPU where there is none, MachineError where there is no room.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if device == "cuda" and not gpus:
        raise UsageError("No machine of the Ray cluster has a GPU", "Leave --device out, or choose cpu")
    if gpus and device != "cpu":
        count = workers or gpus
        return Plan(count, 1, 1.0 if count <= gpus else 1 / -(-count // gpus))
    cores = [int(node.get("CPU", 0)) for node in nodes]
    rooms = [min(own, int(node.get("memory", memory) // memory)) for own, node in zip(cores, nodes, strict=True)]
    count = workers or sum(rooms)
    if not count:
        what = f"No machine of the Ray cluster has a core and {memory / 1e9:.1f} GB for the model"
        raise MachineError(what, "Choose a smaller model or --dtype bfloat16, or set --workers")
    fitting = (each for each in range(max(cores, default=1), 1, -1) if sum(own // each for own in cores) >= count)
    return Plan(count, next(fitting, 1))


def require_ray() -> None:
    """Raise UsageError where Ray Data is not installed."""
    if (missing := missing_package()) is not None:
        raise UsageError(f"--engine ray needs the extra package {missing}", "Install it: pip install 'mmcli[ray]'")


def missing_package() -> str | None:
    """What Ray Data needs and is not installed."""
    return next((name for name in ("ray", "pyarrow", "pandas") if find_spec(name) is None), None)


def check_address(address: str) -> None:
    """Raise UsageError for what cannot be the address of a cluster."""
    if address.startswith("ray://"):
        do = "Run mmcli on a machine of the cluster (or by ray job submit) and give its HOST:PORT, or auto"
        raise UsageError(f"--address {address} is one of Ray's client, which cannot run this", do)
    match = _ADDRESS.fullmatch(address)
    if address != "auto" and not (match and 0 < int(match[1]) < 65536):
        raise UsageError(f"--address {printable(address)!r} is no address", "Give HOST:PORT, or auto")


def reach(address: str | None) -> str | None:
    """The address of a cluster that answers: this one, or RAY_ADDRESS; None for one on this machine alone.

    Raises UsageError and MachineError.
    """
    address = address if address is not None else os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        check_address(address)
        _probe(address)
    return address


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at an address that answers, or to one that is started on this machine.

    What Ray prints goes nowhere meanwhile: standard output is for results. Raises MachineError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        own = not ray.is_initialized()
        if own:
            more: dict[str, Any] = {} if address else {"include_dashboard": False}
            try:
                with _mute():
                    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **more)
            except (OSError, RuntimeError, ValueError) as error:
                raise _unusable(address or "on this machine", str(error)) from error
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            if own:
                ray.shutdown()


@contextmanager
def _mute() -> Iterator[None]:
    """Let what is written in C++ go nowhere, which knows the numbers of the standard streams."""
    kept = {number: os.dup(number) for number in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        for number, own in kept.items():
            os.dup2(own, number)
            os.close(own)
        os.close(nowhere)


def resources() -> list[dict[str, float]]:
    """What each machine of the cluster has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _probe(address: str) -> None:
    """Raise MachineError where no cluster answers at an address, or it cannot be used."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
        except OSError as error:
            raise _silent(address) from error
    command = [sys.executable, "-m", "mmcli.batch.ray_probe", address]
    probe = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert probe.stdout is not None
        if probe.stdout.readline().decode().strip() != READY:  # however long it takes to load
            raise _unusable(address, "Ray cannot be loaded")
        output = probe.communicate(timeout=BUSY)[0].decode("utf-8", "replace").strip().rpartition("\n")[2]
    except subprocess.TimeoutExpired as error:
        raise _silent(address) from error
    finally:
        probe.kill()
        probe.wait()
    if output != GOOD:
        raise _unusable(address, output) if output else _silent(address)


def _silent(address: str) -> MachineError:
    what = f"No Ray cluster answers at {printable(address)}"
    return MachineError(what, "Start one with ray start --head, or check the address with ray status")


def _unusable(address: str, why: str) -> MachineError:
    do = "Run mmcli on a machine of the cluster, with the same version of Ray"
    return MachineError(f"The Ray cluster {printable(address)} cannot be used: {printable(why[:200])}", do)
