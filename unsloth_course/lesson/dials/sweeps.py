"""Dials over recorded sweeps: one knob at several values, each of them a whole training that was run beforehand.

Nobody can wait for seven trainings while turning a slider. So a script in `benchmarks/` ran them once, and what they
measured is shipped in `recorded/sweeps/`, with the device, the versions and the settings. The dial shows that record.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unsloth_course.core import markup, places, writing
from unsloth_course.lesson import plots
from unsloth_course.lesson.dials import sweep_pictures
from unsloth_course.lesson.dials.dial import Dial, over

RECORDED = places.RECORDED / "sweeps"
LAST = 0.1  # share of the logged losses that count as the end of a run


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    value: of the knob. loss: pairs (step, training loss) as logged. scores: by name, after training, the same names in
    every trial. seconds: of training. A loss or score that became infinite or not a number is nan.
    """

    value: float
    seed: int
    loss: list[tuple[int, float]]
    scores: dict[str, float]
    seconds: float

    @property
    def last_loss(self) -> float:
        """The mean of the last tenth of the logged losses, at least of five."""
        end = [loss for _, loss in self.loss][-max(5, round(LAST * len(self.loss))) :]
        return sum(end) / len(end)


@dataclass(frozen=True)
class Sweep:
    """A recorded sweep: a knob, and what was measured at each of its values.

    name: of the file, such as "full-learning-rate". knob: in words, such as "learning rate". metric: of the scores,
    "share" (0 to 1, higher is better) or "perplexity" (lower is better). before: the scores of the base model.
    settings: what all trials share.
    """

    name: str
    knob: str
    metric: str
    before: dict[str, float]
    device: str
    model: str
    versions: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """The values of the knob, ascending."""
        return sorted({trial.value for trial in self.trials})

    @property
    def seeds(self) -> list[int]:
        """The seeds that were run, in the order of the record."""
        return list(dict.fromkeys(trial.seed for trial in self.trials))

    def at(self, value: float) -> list[Trial]:
        """The trials at one value, one for each seed."""
        return [trial for trial in self.trials if trial.value == value]

    def scores(self, name: str, value: float) -> list[float]:
        """One score at one value, seed by seed."""
        return [trial.scores[name] for trial in self.at(value)]

    def write(self, folder: Path = RECORDED) -> Path:
        """Writes the record as `<name>.json`; for the scripts that run sweeps."""
        path = folder / f"{self.name}.json"
        writing.write_text(path, json.dumps(writing.plain(asdict(self)), indent=1, allow_nan=False) + "\n")
        return path


def read(name: str, folder: Path = RECORDED) -> Sweep:
    """The recorded sweep of this name."""
    found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    trials = [
        Trial(**trial | {"loss": [*_numbers(dict(trial["loss"])).items()], "scores": _numbers(trial["scores"])})
        for trial in found["trials"]
    ]
    return Sweep(**found | {"before": _numbers(found["before"]), "trials": trials})


def _numbers(found: Mapping[str, float | None]) -> dict[str, float]:
    """Scores; what JSON cannot say, nan or infinity, is written as null."""
    return {name: math.nan if value is None else value for name, value in found.items()}


@dataclass(frozen=True)
class SweepDial(Dial):
    """A recorded sweep to turn: loss curve and scores at each value of the knob.

    log: the knob's axis is logarithmic. mark: a value to point out in the picture, such as the lesson's own.
    """

    sweep: Sweep
    log: bool = False
    mark: float | None = None

    def picture(self) -> plots.Picture:
        """Scores, and the loss at the end, against the knob; every seed a dot, a line through the means."""
        return sweep_pictures.sweep(self)

    def curve(self, value: float) -> plots.Picture:
        """The loss curves at one value, before those of all others."""
        curves = {other: [trial.loss for trial in self.sweep.at(other)] for other in self.sweep.values}
        return sweep_pictures.picked(curves, value, label=f"{self.sweep.knob} {value:g}")

    def table(self, value: float) -> str:
        """HTML of the scores at one value, as mean and range over the seeds, beside those of the base."""
        rows = (
            (name, self._number(was), self._number(*self.sweep.scores(name, value)))
            for name, was in self.sweep.before.items()
        )
        return markup.table(rows, ("", "before", "after")) + markup.paragraphs([self.about()])

    def about(self) -> str:
        """Where the record comes from, in a sentence."""
        seeds = self.sweep.seeds
        return (
            f"Recorded on {self.sweep.device}, model {self.sweep.model}, "
            f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, unsloth {self.sweep.versions.get('unsloth', 'unknown')}."
        )

    def _number(self, *found: float) -> str:
        good = [value for value in found if math.isfinite(value)]
        if not good:
            return "not a number"
        shown = "{:.1f} %" if self.sweep.metric == "share" else "{:.2f}"
        low, mean, high = (
            shown.format(value * (100 if self.sweep.metric == "share" else 1))
            for value in (min(good), sum(good) / len(good), max(good))
        )
        return mean if low == high else f"{mean} ({low} to {high})"

    def widget(self) -> Any:
        """A slider over the recorded values, the scores, the curve."""
        values = self.sweep.values
        start = self.mark if self.mark in values else values[len(values) // 2]
        return over(values, start, self.sweep.knob, "{:g}", self.table, self.curve)


def learning_rate(mark: float | None = None) -> SweepDial:
    """The full fine-tuning lesson's dial: learning rates from far too low to far too high, on the pocket model.

    mark: the learning rate to point out. Taught in lesson colab1 (full fine-tuning).
    """
    return SweepDial(read("full-learning-rate"), log=True, mark=mark)


def replay(mark: float | None = None) -> SweepDial:
    """The continued-pretraining lesson's dial: shares of replay from none to half of all blocks, on the pocket model.

    mark: the share to point out. Taught in lesson colab5 (continued pretraining).
    """
    return SweepDial(read("cpt-replay"), mark=mark)
