"""Recorded runs of the lessons: what a learner's own curve is laid over, and what a learner without a GPU looks at.

`benchmarks/record.py` makes a recording from the results files of three or more seeds; it is shipped in
`recorded/runs/` as `<lesson>-<profile>.json`, with device, versions and date.

The band at a step is `mean +- 4 s sqrt(1 + 1/n)` of the n smoothed curves: a new run scatters around their true mean by
s, and n runs say where that is to within s / sqrt(n). Three curves are few, so s is pooled over nine neighbouring
points. Smoothed neighbours are alike, which leaves about five independent values, and of these Student's t wants 4 for
99 %. A band narrower than 4 % of the height of the mean curve is widened to that: late in a run a single hard row makes
a spike, as a good run of the DPO lesson with a fourth seed showed. A run lies inside when nine of ten of its smoothed
points do. That says it learned as they did, and not by which method: LoRA and full fine-tuning on the same rows have
nearly the same curve.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course.errors import CourseError
from unsloth_course.profile import POCKET
from unsloth_course.results import Wrong, need, write_text

if TYPE_CHECKING:
    from unsloth_course.plots import Picture
    from unsloth_course.profile import Profile

RECORDED = Path(__file__).parent / "recorded" / "runs"
LESSONS = ("lora", "full", "cpt", "dpo", "grpo")
DEVICES = {"cpu": "a CPU", "gpu": "a GPU"}
SEEDS = 3  # fewer runs have no spread to speak of
POINTS = 5  # fewer are not smoothed, and no share of them means anything
SPREADS = 4.0  # half the band's width, in standard deviations of a new run
NEIGHBOURS = 4  # points on each side that the spread is pooled with
FLOOR = 0.04  # of the height of the mean curve
ENOUGH = 0.9  # share of the points that has to lie inside
SAME_RATE = 0.1  # two learning rates that differ by less are one; the log may just miss the highest of a schedule
WORDS = {3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True)
class Run:
    """One of the recorded runs.

    curves: by the name in the trainer's log, pairs (step, value). scores: by metric, before and after training.
    """

    seed: int
    curves: dict[str, list[tuple[int, float]]]
    scores: dict[str, tuple[float, float]]
    peak_memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Band:
    """Where a smoothed curve is expected, step by step: from `low` to `high`, around `middle`."""

    steps: list[int]
    low: list[float]
    middle: list[float]
    high: list[float]


@dataclass(frozen=True)
class Recording:
    """Recorded runs of one lesson, alike in all but the seed; or, where there is none to compare with, `why`.

    learning_rate: the highest of the schedule; None where it is not known. samples: of the first seed, each with
    "prompt", "before" and "after". A recording with a `why` is false.
    """

    lesson: str
    profile: str
    device: str = ""
    model: str = ""
    data: str = ""
    date: str = ""
    steps: int = 0
    learning_rate: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    samples: tuple[dict[str, str], ...] = ()
    why: str = ""

    def __bool__(self) -> bool:
        return not self.why

    @property
    def curve(self) -> str:
        """The curve that runs are compared by: the loss, but for GRPO, whose loss says nothing, the reward."""
        return "reward" if self.lesson == "grpo" else "loss"

    @property
    def label(self) -> str:
        """What the band is, in a few words."""
        return f"band of {WORDS.get(len(self.runs), len(self.runs))} recorded runs on {self.device}"

    def band(self) -> Band:
        """The band of the smoothed curves, by the rule that stands at the top of this room."""
        from unsloth_course import plots

        curves = [run.curves[self.curve] for run in self.runs]
        smooth = [plots.smoothed([value for _, value in curve]) for curve in curves]
        middle = [sum(values) / len(values) for values in zip(*smooth, strict=True)]
        variance = [
            sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            for values, mean in zip(zip(*smooth, strict=True), middle, strict=True)
        ]
        least = FLOOR * (max(middle) - min(middle))
        wide = SPREADS * math.sqrt(1 + 1 / len(curves))
        half = []
        for place in range(len(variance)):
            near = variance[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
            half.append(max(least, wide * math.sqrt(sum(near) / len(near))))
        low = [mean - width for mean, width in zip(middle, half, strict=True)]
        high = [mean + width for mean, width in zip(middle, half, strict=True)]
        return Band([step for step, _ in curves[0]], low, middle, high)

    def why_not(self, history: Sequence[Mapping[str, Any]]) -> str:
        """Why a run with this log is not compared with the recording, in a sentence; empty where it is."""
        if self.why:
            return self.why
        from unsloth_course import plots

        logged = [step for step, _ in plots._series(history, self.curve)]
        if not logged:
            return f"This run has logged no {self.curve}, so there is nothing to compare with the recorded runs."
        last = max([*logged, *(step for step, _ in plots._series(history, "train_runtime"))])
        if last != self.steps:
            return (
                f"This run has {last:g} steps and the recorded ones have {self.steps}: they are not compared, since "
                "the learning rate follows another schedule."
            )
        if logged != [step for step, _ in self.runs[0].curves[self.curve]]:
            return (
                "This run logged its progress at other steps than the recorded ones, so they are not compared; "
                "logging_steps decides that."
            )
        mine = max((rate for _, rate in plots._series(history, "learning_rate")), default=None)
        theirs = self.learning_rate
        if mine is None or theirs is None or abs(mine - theirs) <= SAME_RATE * abs(theirs):
            return ""
        return (
            f"This run's learning rate went up to {mine:.2g} and that of the recorded ones to {theirs:.2g}: they are "
            "not compared."
        )

    def history(self) -> list[dict[str, float]]:
        """The log of the first recorded run, as `trainer.state.log_history` would have it."""
        rows = [{"step": step, key: value} for key, curve in self.runs[0].curves.items() for step, value in curve]
        return sorted(rows, key=lambda row: row["step"])


@dataclass(frozen=True)
class Comparison:
    """A run beside the recorded ones, in a sentence.

    share: of the points that lie inside the band. inside: whether it is enough. Both None where nothing was compared.
    """

    sentence: str
    inside: bool | None = None
    share: float | None = None

    def __str__(self) -> str:
        return self.sentence

    __repr__ = __str__


def find(machine: "Profile", lesson: str, folder: Path = RECORDED) -> Recording:
    """The recording to compare a run with: same lesson, profile, model and data; or one that says why there is none.

    Raises CourseError as `read` does. Taught in all five lessons.
    """
    recording = read(lesson, machine.name, folder)
    if not recording or (recording.model, recording.data) == (machine.model, machine.data):
        return recording
    if machine.model != recording.model:
        found, kept = f"the model {machine.model}", f"the model {recording.model}"
    else:
        found, kept = f"the data {machine.data}", f"the data {recording.data}"
    why = f"No band: this run has {found}, the recorded ones have {kept}, and such runs say nothing of each other."
    if machine.name == "gpu" and machine.model != POCKET:
        why += (
            " The machine that records has no network: what ran there were the bundled model and a stand-in of the "
            "true size, which is not this model."
        )
    return Recording(lesson, machine.name, why=why)


def read(lesson: str, profile: str, folder: Path = RECORDED) -> Recording:
    """The recorded runs of a lesson in a profile, "cpu" or "gpu"; where there are none, a recording that says so.

    Raises CourseError for a lesson or profile that does not exist, and for a file that is not a recording: it says
    which part is missing or wrong.
    """
    if lesson not in LESSONS or profile not in DEVICES:
        raise CourseError(
            f"There is no recording of {lesson!r} in the profile {profile!r}; the lessons are {', '.join(LESSONS)}, "
            f"the profiles {', '.join(DEVICES)}."
        )
    path = Path(folder) / f"{lesson}-{profile}.json"
    if not path.exists():
        why = f"No run of the {lesson} lesson on {DEVICES[profile]} is recorded yet, so there is none to look at here."
        return Recording(lesson, profile, why=why)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _recording(found, lesson, profile)
    except Wrong as wrong:
        raise CourseError(f"{path.name} is not a recording: {wrong}. Fetch the file again.") from None
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        what = getattr(error, "strerror", None) or str(error)[:100]
        raise CourseError(f"{path.name} cannot be read as JSON ({what}). Fetch the file again.") from None


def write(recording: Recording, folder: Path = RECORDED) -> Path:
    """Writes a recording as `<lesson>-<profile>.json`; for `benchmarks/record.py`."""
    kept = {key: value for key, value in vars(recording).items() if key not in ("runs", "why")}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in kept.items()]
    runs = ",\n".join(json.dumps(vars(run), allow_nan=False) for run in recording.runs)
    path = Path(folder) / f"{recording.lesson}-{recording.profile}.json"
    write_text(path, "{" + ",\n".join([*lines, f'"runs": [\n{runs}\n]']) + "}\n")
    return path


def compare(recording: Recording, history: Sequence[Mapping[str, Any]]) -> Comparison:
    """Whether a run's smoothed curve lies inside the band of a recording.

    history: `trainer.state.log_history`. A point that is no finite number lies outside. Nothing is compared where there
    is no recording or the runs differ in their steps or their learning rate; the sentence says which. Taught in all
    five lessons.
    """
    from unsloth_course import plots

    if why := recording.why_not(history):
        return Comparison(why)
    values = [value for _, value in plots._series(history, recording.curve)]
    band = recording.band()
    # From the first number that is not finite on, the average is none either.
    places = zip(plots.smoothed(values), band.low, band.high, strict=True)
    inside = [low <= value <= high for value, low, high in places]
    share = sum(inside) / len(inside)
    sentence = (
        f"{sum(inside)} of {len(inside)} points of the smoothed {recording.curve} lie inside the {recording.label}"
    )
    if share >= ENOUGH:
        return Comparison(f"{sentence}: this run went as they did.", True, share)
    first = band.steps[inside.index(False)]
    return Comparison(
        f"{sentence}, and {math.ceil(ENOUGH * len(inside))} should: this run went another way, first at step {first}.",
        False,
        share,
    )


@dataclass(frozen=True)
class Shown:
    """A recording to look at: its picture, and a table of what it cost and what the model answered."""

    recording: Recording

    def picture(self) -> "Picture":
        """The curve of the first recorded run over the band of all. Wants a recording."""
        from unsloth_course import plots

        recording, log = self.recording, self.recording.history()
        title = f"Recorded: seed {recording.runs[0].seed} on {recording.device}"
        if recording.curve == "loss":
            return plots.loss(log, title=title, band=recording)
        wanted = ("reward", "reward_std", "frac_reward_zero_std", "completions/mean_length")
        keys = [key for key in wanted if key in recording.runs[0].curves]
        return plots.traces(log, keys, title=title, band=recording)

    def rows(self) -> dict[str, str]:
        """What was recorded, in words, by what it is."""
        from unsloth_course.memory import size

        recording, runs = self.recording, self.recording.runs
        seconds, peaks = [run.seconds for run in runs], [run.peak_memory_bytes for run in runs]
        names = ("unsloth", "torch", "trl")
        rows = {
            "device": recording.device,
            "model, data": f"{recording.model}, {recording.data}",
            "recorded": f"{recording.date}, seeds {', '.join(str(run.seed) for run in runs)}",
            "versions": ", ".join(f"{name} {recording.versions.get(name, 'unknown')}" for name in names),
            "training": f"{recording.steps} steps, {_range(seconds, '{:.1f}'.format)} s",
            "peak memory": _range(peaks, size),
        }
        if recording.learning_rate is not None:
            rows["training"] += f", learning rate {recording.learning_rate:.2g}"
        for name in runs[0].scores:
            before, after = ([run.scores[name][end] for run in runs] for end in (0, 1))
            rows[name.replace("_", " ")] = (
                f"{_range(before, '{:.4g}'.format)} before, {_range(after, '{:.4g}'.format)} after"
            )
        return rows

    def _repr_html_(self) -> str:
        if not self.recording:
            return f"<p>{html.escape(self.recording.why)}</p>"
        left = '<td style="text-align:left">'
        rows = "".join(
            f"<tr>{left}{html.escape(what)}</td>{left}{html.escape(value)}</td></tr>"
            for what, value in self.rows().items()
        )
        parts = [f"<table>{rows}</table>"]
        if self.recording.samples:
            columns = ("prompt", "before", "after")
            head = "".join(f'<th style="text-align:left">{name}</th>' for name in columns)
            texts = "".join(
                "<tr>"
                + "".join(f"{left}<code>{html.escape(sample[name].strip())}</code></td>" for name in columns)
                + "</tr>"
                for sample in self.recording.samples
            )
            parts.append(f"<table><tr>{head}</tr>{texts}</table>")
        return "".join(parts)

    def __str__(self) -> str:
        if not self.recording:
            return self.recording.why
        rows = self.rows()
        width = max(map(len, rows)) + 2
        lines = [f"{what:<{width}}{value}" for what, value in rows.items()]
        for sample in self.recording.samples:
            lines.append(f"{sample['prompt']!r}\n    before {sample['before']!r}\n    after  {sample['after']!r}")
        return "\n".join(lines)

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self.recording:
            display(self.picture())
        display({"text/html": self._repr_html_(), "text/plain": str(self)}, raw=True)


def show(lesson: str, profile: str, folder: Path = RECORDED) -> Shown:
    """The recorded run of a lesson, to look at on any machine: curve, samples, memory, seconds, device.

    lesson: such as "lora". profile: "cpu" or "gpu". Where nothing is recorded, a sentence. Raises CourseError as `read`
    does. Taught in all five lessons.
    """
    return Shown(read(lesson, profile, folder))


def _range(values: Sequence[float], written: Any) -> str:
    low, high = written(min(values)), written(max(values))
    return low if low == high else f"{low} to {high}"


# ---------------------------------------------------------------------------------------------------------------------
# Reading a file that anybody may have changed


def _recording(found: Any, lesson: str, profile: str) -> Recording:
    texts = ("lesson", "profile", "device", "model", "data", "date")
    # A step and a seed may be any whole number that JSON can hold; neither is calculated with.
    need(found, dict.fromkeys(texts, str) | {"steps": int, "versions": dict, "runs": list, "samples": list}, "the file")
    if (found["lesson"], found["profile"]) != (lesson, profile):
        raise Wrong(f"it holds the lesson {found['lesson'][:20]!r} in the profile {found['profile'][:20]!r}")
    recording = Recording(
        **{name: found[name] for name in texts},
        steps=found["steps"],
        learning_rate=None if (rate := found.get("learning_rate")) is None else _number(rate, "learning_rate"),
        versions={str(name): str(version) for name, version in found["versions"].items()},
        runs=tuple(_run(run, f"run {number}") for number, run in enumerate(found["runs"], 1)),
        samples=tuple(_sample(sample, f"sample {number}") for number, sample in enumerate(found["samples"], 1)),
    )
    if faults := disagreement(recording):
        raise Wrong(faults)
    return recording


def disagreement(recording: Recording) -> str:
    """What keeps these runs from giving a band, in words; empty where nothing does."""
    runs, key = recording.runs, recording.curve
    if len({run.seed for run in runs}) < max(SEEDS, len(runs)):
        return f"it wants at least {SEEDS} runs, each with a seed of its own"
    steps = [[step for step, _ in run.curves.get(key, ())] for run in runs]
    if min(map(len, steps)) < POINTS:
        return f"a run has fewer than {POINTS} points of {key}"
    if any(other != steps[0] for other in steps):
        return f"its runs logged the {key} at different steps"
    if sorted(set(steps[0])) != steps[0] or not 0 <= steps[0][0] <= steps[0][-1] <= recording.steps:
        return f"the steps of its {key} do not rise to {recording.steps}"
    if any(run.scores.keys() != runs[0].scores.keys() for run in runs):
        return "its runs were scored differently"
    return ""


def _run(found: Any, where: str) -> Run:
    need(found, {"seed": int, "curves": dict, "scores": dict}, where)
    curves = {name: _pairs(curve, f"{name[:40]} of {where}") for name, curve in found["curves"].items()}
    scores = {name: _pair(score, f"{name[:40]} of {where}") for name, score in found["scores"].items()}
    peak, seconds = (_number(found.get(name), f"{name} of {where}") for name in ("peak_memory_bytes", "seconds"))
    return Run(found["seed"], curves, scores, int(peak), seconds)


def _pairs(found: Any, where: str) -> list[tuple[int, float]]:
    if not isinstance(found, list):
        raise Wrong(f"{where} is not a list of pairs of step and value")
    pairs = [_pair(pair, where) for pair in found]
    if any(step != int(step) for step, _ in pairs):
        raise Wrong(f"{where} has a step that is no whole number")
    return [(int(step), value) for step, value in pairs]


def _pair(found: Any, where: str) -> tuple[float, float]:
    if not isinstance(found, list) or len(found) != 2:
        raise Wrong(f"{where} does not hold two numbers where it should")
    return _number(found[0], where), _number(found[1], where)


def _sample(found: Any, where: str) -> dict[str, str]:
    names = ("prompt", "before", "after")
    need(found, dict.fromkeys(names, str), where)
    return {name: found[name] for name in names}


def _number(value: Any, where: str) -> float:
    """A number that a picture can show; beyond 1e15 is no loss, no reward and no score of this course."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
        raise Wrong(f"{where} holds {str(value)[:40]!r} where a number is due")
    return float(value)
