"""A small slice of the hostile inputs that `python tests/bench/hostile` runs by the thousand."""

import pytest
from bench.hostile.runner import bounds, kinds, trial

# Kind → inputs in this slice, where 40 would take long.
FEW = {"http": 20, "caches": 12, "checkpoints": 30, "templates": 12}


@pytest.mark.parametrize("kind", kinds())
def test_hostile_inputs_are_answered_or_refused(kind):
    tally = bounds(kind)
    tally.seconds = float("inf")  # no test looks at a clock; what hangs is killed
    faults = [
        f"{fault}: python tests/bench/hostile --kind {kind} --seed 0 --only {result.index}\n{result.words}"
        for result in trial(kind, count=FEW.get(kind, 40), seed=0)
        if (fault := tally.add(result))
    ]
    assert faults == []
