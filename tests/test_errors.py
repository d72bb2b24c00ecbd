"""Which exit code each kind of error has, what counts as a shortage of memory, and what as an interruption."""

import errno

import pytest
from command import mmcli

from mmcli.cli.environment import READER_GONE, OutputError
from mmcli.errors import (
    ExitCode,
    InputError,
    MachineError,
    MemoryShortage,
    MmcliError,
    ModelError,
    UsageError,
    WriteError,
    raise_if_interrupted,
    ran_out_of_memory,
    was_interrupted,
)

CODES = {
    InputError: 1,
    UsageError: 2,
    ModelError: 3,
    MachineError: 4,
    WriteError: 4,
    MemoryShortage: 4,
    OutputError: 4,
}


def kinds(kind: type[MmcliError]) -> set[type[MmcliError]]:
    return {kind}.union(*(kinds(other) for other in kind.__subclasses__()))


def test_every_kind_of_error_has_the_code_that_is_documented():
    assert {kind: int(kind.exit_code) for kind in CODES} == CODES
    for kind in kinds(MmcliError) - {MmcliError}:
        assert isinstance(kind.exit_code, ExitCode) and 1 <= kind.exit_code <= 4, kind
    assert (ExitCode.OK, ExitCode.INTERRUPTED, READER_GONE) == (0, 130, 141)


def raised(error: Exception, *, from_: BaseException | None = None, while_: BaseException | None = None) -> Exception:
    try:
        if while_ is None:
            raise error from from_
        try:
            raise while_
        except type(while_):
            raise error  # noqa: B904 (that it has a context and no cause is what is tested)
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (ImportError("libtorch.so: failed to map segment from shared object"), True),
        (raised(InputError("it failed"), from_=MemoryError()), True),
        (raised(InputError("it failed"), while_=MemoryError()), True),
        (raised(InputError("it failed"), from_=ValueError("not enough memory")), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("out of memory"), False),  # what a file may say
    ],
    ids=repr,
)
def test_what_a_shortage_of_memory_is(error, short):
    assert ran_out_of_memory(error) is short


def test_an_input_that_does_not_fit_into_memory_is_the_machines_failure(monkeypatch, album, tiny):
    def fail(*arguments, **options):
        raise InputError("album/b.jpg does not fit into memory") from MemoryError()

    monkeypatch.setattr("mmcli.cli.start.report_size", fail)
    assert mmcli("caption", "album/b.jpg", "--model", tiny, stderr_tty=True).code == 4


@pytest.mark.parametrize(
    ("error", "interrupted"),
    [
        (KeyboardInterrupt(), True),
        (SystemExit(143), True),
        (raised(RuntimeError("cannot release un-acquired lock"), while_=KeyboardInterrupt()), True),
        (raised(ModelError("it failed"), from_=raised(SystemError(), while_=KeyboardInterrupt())), True),
        (raised(raised(InputError("it failed"), while_=SystemExit(143)), from_=ValueError()), True),  # beside a cause
        (raised(InputError("it failed"), from_=ValueError("KeyboardInterrupt")), False),
        (None, False),
    ],
    ids=repr,
)
def test_what_an_interruption_is(error, interrupted):
    assert was_interrupted(error) is interrupted


def test_errors_that_came_from_each_other_have_an_end():
    first, second = ValueError(), KeyError()
    first.__context__, second.__cause__ = second, first
    assert not was_interrupted(first) and not ran_out_of_memory(first)
    second.__context__ = KeyboardInterrupt()
    assert was_interrupted(first)


def test_an_interruption_is_raised_as_what_it_was():
    with pytest.raises(KeyboardInterrupt):
        raise_if_interrupted(raised(RuntimeError(), while_=KeyboardInterrupt()))
    with pytest.raises(SystemExit) as caught:
        raise_if_interrupted(raised(RuntimeError(), while_=SystemExit(143)))
    assert caught.value.code == 143
    raise_if_interrupted(raised(RuntimeError(), while_=ValueError()))
