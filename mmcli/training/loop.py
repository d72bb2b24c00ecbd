"""The training loop: updates, evaluations, checkpoints."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.models.loaded import Loaded
from mmcli.models.teaching import Batch, Row, Teaching
from mmcli.training.batches import Examples, Feeder
from mmcli.training.objective import Objective
from mmcli.training.parts import groups, prepare
from mmcli.training.ranks import Ranks
from mmcli.training.results import Results
from mmcli.training.settings import TuneSettings
from mmcli.training.shards import put, share_out, whole, whole_state
from mmcli.training.state import State, read_state, restore, save
from mmcli.training.watch import Log, Watcher

MOST_HELD = 256  # held-out examples of which the loss is taken
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Score:
    """How good the answers to the held-out examples are."""

    name: str
    value: float
    lower: bool  # whether a smaller value is better
    values: dict[str, float]


@dataclass(frozen=True)
class Held:
    """What is held out, and how it is looked at beside its loss."""

    examples: Sequence[Example] = ()
    score: Callable[[Loaded], Score] | None = None
    samples: Callable[[Loaded], list[dict[str, Any]]] | None = None


class Trainer:
    """One run. `run` goes to its end and leaves the best weights in the output folder."""

    def __init__(
        self,
        loaded: Loaded,
        examples: Examples,
        held: Held,
        settings: TuneSettings,
        ranks: Ranks,
        results: Results,
        watcher: Watcher,
    ):
        """`loaded` is the model as it was before, not fused. With a checkpoint in `results` the run goes on from it."""
        assert loaded.family is not None and loaded.family.teaching is not None
        self.loaded, self.settings, self.ranks, self.results, self.watcher = loaded, settings, ranks, results, watcher
        self.teaching: Teaching = loaded.family.teaching
        self.held = held
        self._set_aside: dict[str, Tensor] = {}  # weights of the last update while averages stand in their places
        self.teaching.begin(loaded.model)
        self.layers = prepare(loaded.model, self.teaching, settings)
        results.layers = self.layers
        full = settings.method != "lora"
        self.objective: nn.Module = Objective(loaded.model, self.teaching, full and ranks.device.type == "cuda")
        if ranks.shared:
            share_out(self.objective, loaded.model, self.teaching.checkpointed, ranks.device, full)
        elif ranks.world > 1:
            # What reads images or audio has no part in a batch without any.
            always = bool(self.layers) and all(name.startswith("decoder.") for name in self.layers)
            self.objective = DistributedDataParallel(self.objective, find_unused_parameters=not always)
        self.state = State()
        self.optimizer = torch.optim.AdamW(groups(loaded.model, settings), lr=0.0, betas=BETAS, eps=1e-8)
        named = loaded.model.named_parameters()
        self.trained: dict[str, nn.Parameter] = {name: one for name, one in named if one.requires_grad}
        self.averaged = {name: one.detach().clone() for name, one in self.trained.items()} if settings.average else {}
        if results.resumed is not None:
            self._go_on(results.resumed)
        self.feeder = Feeder(loaded, self.teaching, examples, settings.batch, settings.micro, ranks.rank, ranks.world)
        self.log = Log(results.output, self.state.step) if ranks.first else None

    def _go_on(self, checkpoint: Path) -> None:
        self.state, _ = read_state(checkpoint)
        self.results.read(self.loaded.model, checkpoint)
        place = torch.device("cpu") if self.ranks.shared else self.ranks.device
        live = restore(checkpoint, self.optimizer, place)
        with torch.no_grad():
            for name, average in self.averaged.items():
                average.copy_(self.trained[name])
                put(self.trained[name], live[name])

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> State:
        """All updates that are left. Raises InputError where the loss is no number."""
        if not self.state.step:
            self._look(first=True)
        updates = self.feeder.updates(self.state.step)
        try:
            while not self._is_over():
                self._update(next(updates))
                looks = self.state.step % self.settings.every == 0 or self._is_over()
                if looks and self._look():
                    break
        finally:
            updates.close()
        if not self.held.examples:
            self._keep()
        return self.state

    def _is_over(self) -> bool:
        settings, state = self.settings, self.state
        late = settings.minutes is not None and state.spent >= 60 * settings.minutes
        return state.step >= settings.steps or late

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        done = self.state.step / self.settings.steps
        return (
            done
            if self.settings.minutes is None
            else max(done, min(1.0, self.state.spent / (60 * self.settings.minutes)))
        )

    def _update(self, batches: list[Batch]) -> None:
        began = time.monotonic()
        settings, state = self.settings, self.state
        torch.manual_seed(1_000_003 * settings.seed + 1009 * state.step + self.ranks.rank)
        self.loaded.model.train()
        rate = settings.rate_at((state.step + 0.5) / settings.steps if settings.minutes is None else self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        counts = sum(batch.learned for batch in batches), sum(len(batch.targets) for batch in batches)
        tokens, rows = (max(1.0, one) for one in self.ranks.sum(*counts))
        loss = 0.0
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            loss += self._back(batch, tokens, rows, last)
        norm = float(whole({"": nn.utils.clip_grad_norm_(self.trained.values(), settings.clip)}, keep=True)[""])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        self._average()
        [loss] = self.ranks.sum(loss)
        if loss != loss or norm != norm:
            raise InputError(f"The loss is no number at step {state.step}", "Choose a smaller --lr")
        seconds = time.monotonic() - began
        state.spent = self.ranks.agreed(state.spent + seconds)
        if self.log is not None:
            line = {"step": state.step, "loss": loss, "rate": rate, "gradient": norm, "tokens": int(tokens)}
            line |= {"seconds": round(seconds, 4), "samples_per_second": round(settings.batch / seconds, 3)}
            if self.ranks.device.type == "cuda":
                line["memory"] = torch.cuda.max_memory_allocated(self.ranks.device)  # bytes, at most so far
            self.log.add(line)
            self.watcher.updated(line | {"progress": self.progress, "spent": state.spent})

    def _back(self, batch: Batch, tokens: float, rows: float, last: bool) -> float:
        """Gradients of one batch, as its share of the update's mean; several processes add theirs at the last one."""
        batch = batch.to(self.ranks.device, self._input_type())
        if isinstance(self.objective, DistributedDataParallel):
            self.objective.require_backward_grad_sync = last  # shared weights do it each time: nobody has room for more
        summed, further = self.objective(batch)
        loss = summed / tokens + further / rows
        (loss * self.ranks.world).backward()  # processes average what they have
        return loss.item()

    def _input_type(self) -> torch.dtype:
        return torch.float32 if self.settings.method != "lora" else self.loaded.dtype

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.settings.average, self.state.step / (self.state.step + 10))
        for name, average in self.averaged.items():
            average.lerp_(self.trained[name], 1 - keep)

    # -- looking at what is held out ---------------------------------------------------------------------------------

    def _look(self, first: bool = False) -> bool:
        """Evaluate, keep what is best, write a checkpoint → whether it is time to stop early."""
        stop = False
        with self._with_averages():
            self.loaded.model.eval()
            if self.held.examples:
                line = self._evaluate()
                stop = self._rank(line, first)
                if self.log is not None:
                    self.log.add(line)
                    self.watcher.evaluated(line | {"best_step": self.state.best_step, "best": self.state.best})
            if not first:
                self._write_checkpoint()
        return stop

    def _write_checkpoint(self) -> None:
        writes = self.ranks.first  # all processes give their shares, one writes
        state, live = whole(self.results.held(), writes), whole(self._set_aside, writes)
        optimizer = whole_state(self.optimizer, writes)
        if writes:
            write = partial(self.results.write_checkpoint, state=state)
            save(self.results.output, self.state, self.settings, optimizer, live, write)

    def _rank(self, line: dict[str, Any], first: bool) -> bool:
        """Keep the weights where they are the best so far → whether none was better for long enough."""
        state, value = self.state, line["measure"]
        state.lower = line["lower"]
        if first:
            state.first = line
        better = state.best is None or (value < state.best if state.lower else value > state.best)
        if better:
            state.best, state.best_step, state.worse = value, state.step, 0
        else:
            state.worse += 1
        if better and not first:
            self._keep()
        return bool(self.settings.patience) and state.worse >= self.settings.patience

    def _keep(self) -> None:
        state = whole(self.results.held(), self.ranks.first)
        if self.ranks.first:
            self.results.write_result(state)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, Any]:
        """The loss of the held-out examples, their measures, and a few answers."""
        total = learned = 0.0
        examples = list(enumerate(self.held.examples[:MOST_HELD]))
        mine, most = examples[self.ranks.rank :: self.ranks.world], math.ceil(len(examples) / self.ranks.world)
        for start in range(0, most, self.feeder.micro):
            rows = self._held_rows(mine[start : start + self.feeder.micro])
            if not rows and not self.ranks.shared:
                continue
            # Those who share the weights compute together: one that has nothing left does so with what is not counted.
            batch = self.teaching.batch(rows or [self.feeder.row(0)]).to(self.ranks.device, self._input_type())
            loss = self._plain(batch)
            if rows:
                total, learned = total + loss, learned + batch.learned
        total, learned = self.ranks.sum(total, learned)
        if not learned:
            raise InputError("No held-out example can be learned", "Name others with --eval")
        loss = total / learned
        line: dict[str, Any] = {"step": self.state.step, "eval_loss": loss, "measure": loss, "lower": True}
        if self.held.score is not None:
            score = self.held.score(self.loaded) if self.ranks.first else None
            if score is not None:
                line |= {"measures": score.values}
            if self.settings.measure != "loss":
                value = self.ranks.agreed(score.value if score else 0.0)
                lower = self.ranks.agreed(float(score.lower) if score else 0.0)
                line |= {"measure": value, "lower": bool(lower)}
        if self.held.samples is not None and self.ranks.first:
            line["samples"] = self.held.samples(self.loaded)
        return line

    def _held_rows(self, examples: Sequence[tuple[int, Example]]) -> list[Row]:
        rows = []
        for number, example in examples:
            try:
                rows.append(self.teaching.rows(self.loaded, example, random.Random(number))[0])
            except InputError as error:
                self.feeder.unusable[str(error)] += 1
        return rows

    def _plain(self, batch: Batch) -> float:
        objective = self.objective.module if isinstance(self.objective, DistributedDataParallel) else self.objective
        return cast(nn.Module, objective)(batch)[0].item()

    def _with_averages(self) -> "_Averages":
        return _Averages(self)

    def described(self) -> dict[str, Any]:
        """What was done, for the model's card."""
        return {"settings": asdict(self.settings), "state": asdict(self.state), "unusable": dict(self.feeder.unusable)}


class _Averages:
    """A context in which averaged weights, if there are any, stand in the place of those of the last update."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    @torch.no_grad()
    def __enter__(self) -> None:
        own = self.trainer
        if own.averaged:
            own._set_aside = {name: one.detach().clone() for name, one in own.trained.items()}
            for name, average in own.averaged.items():
                own.trained[name].copy_(average)

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        own = self.trainer
        for name, live in own._set_aside.items():
            own.trained[name].copy_(live)
        own._set_aside = {}
