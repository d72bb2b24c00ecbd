"""What a training run is to do."""

import math
from dataclasses import dataclass
from typing import Literal

from mmcli.layers.lora import LoraConfig

Method = Literal["lora", "full", "head"]


@dataclass(frozen=True)
class TuneSettings:
    """Everything that decides the result beside the model and the data; it goes into the output folder."""

    method: Method
    steps: int  # updates in all; with `minutes` as many as there is time for, at most
    batch: int  # examples an update, of all processes together
    rate: float  # the highest learning rate
    minutes: float | None = None  # training time; the learning rate then falls by the clock
    micro: int | None = None  # examples that a process reads at once; None: all of an update's
    lora: LoraConfig = LoraConfig()
    warm: float = 0.05  # share of the run in which the rate rises
    decay: float = 0.01  # weight decay of matrices
    clip: float = 1.0  # length of the gradient, at most
    average: float = 0.0  # how much averaged weights keep of themselves at each update; 0: there are none
    recompute: bool = False  # activations on the way back: less memory, more time
    frozen: tuple[str, ...] = ()  # beginnings of the names of what stays as it is
    trained: tuple[str, ...] = ()  # … of what is trained though its family would leave it
    every: int = 50  # updates from one evaluation to the next; a checkpoint is written then
    patience: int = 0  # evaluations without a better one until it stops; 0: never
    measure: str = "loss"  # of the held-out examples, by which the best is chosen
    seed: int = 0
    quantize: str = "none"  # the integers in which the weights below LoRA are kept

    def rate_at(self, progress: float) -> float:
        """The learning rate at a share of the run: a rise, then a half cosine down to nothing."""
        if progress < self.warm:
            return self.rate * max(progress, 1e-3) / self.warm
        return self.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - self.warm) / (1 - self.warm))))
