"""Recorded runs of the lessons: what a learner's own curve is laid over, and what a learner without a GPU looks at.

`benchmarks/record.py` makes a recording from the results files of three or more seeds; it is shipped in
`recorded/runs/` with device, versions and date: as `<lesson>-<profile>.json` of the bundled model, and as
`<lesson>-<profile>-smollm2.json` of the real one. A run is compared only where its weights and the source of its rows
are those of the recorded ones, which `fingerprint` tells by their content and not by their names.

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsloth_course.core import places
from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import Wrong, need, write_text
from unsloth_course.lesson.fingerprint import fingerprint
from unsloth_course.lesson.profile import is_pocket

if TYPE_CHECKING:
    from unsloth_course.lesson.plots import Picture
    from unsloth_course.lesson.profile import Profile

RECORDED = places.RECORDED / "runs"
LESSONS = ("lora", "full", "cpt", "dpo", "grpo")
DEVICES = {"cpu": "a CPU", "gpu": "a GPU"}
SEEDS = 3  # fewer runs have no spread to speak of
POINTS = 5  # fewer are not smoothed, and no share of them means anything
SPREADS = 4.0  # half the band's width, in standard deviations of a new run
NEIGHBOURS = 4  # points on each side that the spread is pooled with
FLOOR = 0.04  # of the height of the mean curve
ENOUGH = 0.9  # share of the points that has to lie inside
SAME_RATE = 0.1  # two learning rates that differ by less are one; the log may just miss the highest of a schedule
WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
"""What of `data.sources` a lesson takes its rows from."""
SAMPLE = ("kind", "prompt", "before", "after")
HELD_OUT = "held out"
"""How the name of a run's own score begins, which its measures hold too."""


@dataclass(frozen=True)
class Run:
    """One of the recorded runs.

    curves: by the name in the trainer's log, pairs (step, value). scores: by metric, before and after training.
    measures: each as `evaluation.Measure` has it, the judging one first; a record of older results has none. seconds:
    of training; wall_seconds of the whole lesson, 0 where it is not known.
    """

    seed: int
    curves: dict[str, list[tuple[int, float]]]
    scores: dict[str, tuple[float, float]]
    peak_memory_bytes: int
    seconds: float
    measures: tuple[dict[str, Any], ...] = ()
    wall_seconds: float = 0.0


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
    "prompt", "before" and "after", and "kind" where it is known. fingerprint: as `fingerprint` gives it; empty in a
    record of older results. trained: the number of trained parameters. A recording with a `why` is false.
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
    fingerprint: dict[str, dict[str, str]] = field(default_factory=dict)
    trained: int = 0
    why: str = ""

    def __bool__(self) -> bool:
        return not self.why

    @property
    def curve(self) -> str:
        """The curve that runs are compared by: the loss, but for GRPO, whose loss says nothing, the reward."""
        return "reward" if self.lesson == "grpo" else "loss"

    @property
    def banded(self) -> bool:
        """Whether there are runs enough for a band."""
        return len(self.runs) >= SEEDS

    @property
    def label(self) -> str:
        """What the band is, in a few words."""
        count = len(self.runs)
        runs = f"{WORDS.get(count, count)} recorded run{'s' if count > 1 else ''} on {self.device}"
        return f"band of {runs}" if self.banded else runs

    def band(self) -> Band:
        """The band of the smoothed curves, by the rule that stands at the top of this room."""
        from unsloth_course.lesson import plots

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

    def compare(self, history: Sequence[Mapping[str, Any]]) -> "Comparison":
        """`compare` with this recording."""
        return compare(self, history)

    def why_not(self, history: Sequence[Mapping[str, Any]]) -> str:
        """Why a run with this log is not compared with the recording, in a sentence; empty where it is."""
        if self.why:
            return self.why
        from unsloth_course.lesson import plots

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

    def measures(self) -> dict[str, "Measured"]:
        """Each measure over the runs, by its name in words, the judging one first; older records have none."""
        found: dict[str, list[dict[str, Any]]] = {}
        for run in self.runs:
            for measure in run.measures:
                found.setdefault(measure["name"], []).append(measure)
        return {name.replace("_", " "): Measured(name, each) for name, each in found.items()}

    def named(self, part: str, otherwise: str) -> str:
        """The "weights" or the "rows" in words, with what stands for their content."""
        found = self.fingerprint.get(part)
        if not found:
            return otherwise
        text = f"{found['name']} ({found['sha']})"
        return f"{text}, {rounded(found['from'])}" if found.get("from") else text

    def history(self) -> list[dict[str, float]]:
        """The log of the first recorded run, as `trainer.state.log_history` would have it."""
        rows = [{"step": step, key: value} for key, curve in self.runs[0].curves.items() for step, value in curve]
        return sorted(rows, key=lambda row: row["step"])


@dataclass(frozen=True)
class Measured:
    """One measure of several runs, each as `evaluation.Measure` has it, as a dictionary."""

    name: str
    each: Sequence[Mapping[str, Any]]

    def value(self, end: str) -> str:
        """ "before" or "after" of the runs, from the lowest to the highest."""
        return _range([one[end] for one in self.each], partial(written, self.name))

    @property
    def interval(self) -> str:
        """From the lowest to the highest end of the runs' 95 % intervals of after minus before."""
        from unsloth_course.lesson.evaluation.scores import NOT_SHARES

        low, high = min(one["interval"][0] for one in self.each), max(one["interval"][1] for one in self.each)
        if self.name in NOT_SHARES:
            return f"{low:+.3g} to {high:+.3g}"
        return f"{100 * low:+.1f} to {100 * high:+.1f} points"

    @property
    def likelier(self) -> str:
        """How many of the rows became likelier, where the measure counts them."""
        counts = [one["likelier"] for one in self.each if one.get("likelier") is not None]
        return f"{_range(counts, '{:.0f}'.format)} of {self.each[0]['n']:.0f} rows likelier" if counts else ""

    def __str__(self) -> str:
        parts = [f"95 % interval of the difference {self.interval}", f"n = {self.each[0]['n']:.0f}", self.likelier]
        return f"{self.value('before')} before, {self.value('after')} after ({', '.join(filter(None, parts))})"


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
    """The recording to compare a run with: same lesson and profile, same weights and rows; or one that says why none.

    Raises CourseError as `read` does. Taught in all five lessons.
    """
    real = not is_pocket(machine.model)
    recording, why = read(lesson, machine.name, folder, real), ""
    if recording and recording.fingerprint:
        mine, kept = fingerprint(machine.model, machine.data, lesson), recording.fingerprint
    else:  # a record of older results: the names have to do
        mine, kept = (
            {part: {"name": name, "sha": name} for part, name in (("weights", one.model), ("rows", one.data))}
            for one in (machine, recording)
        )
    if recording:
        other = next((part for part in ("weights", "rows") if mine[part]["sha"] != kept[part]["sha"]), "")
        if not other and recording.banded:
            return recording
        if not other:
            why = f"No band yet: of these weights and rows only {len(recording.runs)} of {SEEDS} runs are recorded."
    if recording and not why:
        found, theirs = mine[other]["name"], kept[other]["name"]
        theirs = f"other {other} of that name" if found == theirs else f"those of {theirs}"
        why = (
            f"No band yet for these {other}: this run has the {other} of {found}, and the recorded ones have {theirs}."
        )
    if real:
        why = (why or f"No run with SmolLM2 on {DEVICES[machine.name]} is recorded yet, so there is no band.") + (
            f" Three runs with seeds of their own make one: send results/{lesson}.json of each in an issue."
        )
    return Recording(lesson, machine.name, why=why or recording.why)


def file_name(lesson: str, profile: str, real: bool = False) -> str:
    """What the file of a recording is called; real: that of SmolLM2, not of the bundled model."""
    return f"{lesson}-{profile}{'-smollm2' if real else ''}.json"


def read(lesson: str, profile: str, folder: Path = RECORDED, real: bool = False) -> Recording:
    """The recorded runs of a lesson in a profile, "cpu" or "gpu"; where there are none, a recording that says so.

    real: those of SmolLM2, and not of the bundled model. Raises CourseError for a lesson or profile that does not
    exist, and for a file that is not a recording: it says which part is missing or wrong.
    """
    if lesson not in LESSONS or profile not in DEVICES:
        raise CourseError(
            f"There is no recording of {lesson!r} in the profile {profile!r}; the lessons are {', '.join(LESSONS)}, "
            f"the profiles {', '.join(DEVICES)}."
        )
    path = Path(folder) / file_name(lesson, profile, real)
    if not path.exists():
        what = f"{DEVICES[profile]}{' with SmolLM2' if real else ''}"
        why = f"No run of the {lesson} lesson on {what} is recorded yet, so there is none to look at here."
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
    """Writes a recording under its `file_name`; for `benchmarks/record.py`."""
    kept = {key: value for key, value in vars(recording).items() if key not in ("runs", "why")}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in kept.items()]
    runs = ",\n".join(json.dumps(vars(run), allow_nan=False) for run in recording.runs)
    path = Path(folder) / file_name(recording.lesson, recording.profile, not is_pocket(recording.model))
    write_text(path, "{" + ",\n".join([*lines, f'"runs": [\n{runs}\n]']) + "}\n")
    return path


def compare(recording: Recording, history: Sequence[Mapping[str, Any]]) -> Comparison:
    """Whether a run's smoothed curve lies inside the band of a recording.

    history: `trainer.state.log_history`. A point that is no finite number lies outside. Nothing is compared where there
    is no recording or the runs differ in their steps or their learning rate; the sentence says which. Taught in all
    five lessons.
    """
    from unsloth_course.lesson import plots

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
        """The curve of the first recorded run, over the band of all where they make one. Wants a recording."""
        from unsloth_course.lesson import plots

        recording, log = self.recording, self.recording.history()
        title = f"Recorded: seed {recording.runs[0].seed} on {recording.device}"
        band = recording if recording.banded else None
        if recording.curve == "loss":
            return plots.loss(log, title=title, band=band)
        wanted = ("reward", "reward_std", "frac_reward_zero_std", "completions/mean_length")
        keys = [key for key in wanted if key in recording.runs[0].curves]
        return plots.traces(log, keys, title=title, band=band)

    def rows(self) -> dict[str, str]:
        """What was recorded, in words, by what it is: the measures first, the one that judges before the others."""
        from unsloth_course.lesson.memory import size

        recording, runs = self.recording, self.recording.runs
        rows = {name: str(found) for name, found in recording.measures().items()}
        for name in [name for name in runs[0].scores if not (rows and name.startswith(HELD_OUT))]:
            before, after = ([run.scores[name][end] for run in runs] for end in (0, 1))
            rows[name.replace("_", " ")] = (
                f"{_range(before, '{:.4g}'.format)} before, {_range(after, '{:.4g}'.format)} after"
            )
        names = ("unsloth", "torch", "trl")
        rows |= {
            "peak memory": _range([run.peak_memory_bytes for run in runs], size),
            "training": f"{recording.steps} steps, {_range([run.seconds for run in runs], '{:.1f}'.format)} s",
            **({"trained parameters": f"{recording.trained:,}"} if recording.trained else {}),
            "weights": recording.named("weights", recording.model),
            "rows": recording.named("rows", recording.data),
            "device": recording.device,
            "recorded": f"{recording.date}, seeds {', '.join(str(run.seed) for run in runs)}",
            "versions": ", ".join(f"{name} {recording.versions.get(name, 'unknown')}" for name in names),
        }
        if recording.learning_rate is not None:
            rows["training"] += f", learning rate {recording.learning_rate:.2g}"
        if all(run.wall_seconds for run in runs):
            rows["training"] += f"; the whole lesson {_range([run.wall_seconds for run in runs], '{:.0f}'.format)} s"
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
            columns = [name for name in SAMPLE if any(sample.get(name) for sample in self.recording.samples)]
            head = "".join(f'<th style="text-align:left">{name}</th>' for name in columns)
            texts = "".join(
                "<tr>"
                + "".join(f"{left}<code>{html.escape(sample.get(name, '').strip())}</code></td>" for name in columns)
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
            kind = f"{sample['kind']}: " if sample.get("kind") else ""
            lines.append(f"{kind}{sample['prompt']!r}\n    before {sample['before']!r}\n    after  {sample['after']!r}")
        return "\n".join(lines)

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self.recording:
            display(self.picture())
        display({"text/html": self._repr_html_(), "text/plain": str(self)}, raw=True)


def show(lesson: str, profile: str, folder: Path = RECORDED) -> Shown:
    """The recorded run of a lesson, to look at on any machine: curve, measures, samples, memory, seconds, device.

    lesson: such as "lora". profile: "cpu" or "gpu". It is that of SmolLM2 where one is recorded, and else that of the
    bundled model; where nothing is, a sentence. Raises CourseError as `read` does. Taught in all five lessons.
    """
    return Shown(read(lesson, profile, folder, real=True) or read(lesson, profile, folder))


def written(name: str, value: float) -> str:
    """A value of a measure as text: a share as a percentage, another number as it is."""
    from unsloth_course.lesson.evaluation.scores import NOT_SHARES

    if name not in NOT_SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def rounded(kind: str) -> str:
    """What it means that weights were rounded to a kind of llama.cpp's."""
    return (
        f"rounded to {kind}, about 4.5 bits a weight; part of a gain on general text may be the repair of the rounding"
    )


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
        fingerprint=_fingerprint(found.get("fingerprint") or {}),
        trained=int(_number(found.get("trained", 0), "trained")),
    )
    if faults := disagreement(recording):
        raise Wrong(faults)
    return recording


def disagreement(recording: Recording) -> str:
    """What keeps these runs from giving a band, in words; empty where nothing does."""
    runs, key = recording.runs, recording.curve
    # Of the real model fewer are shown as well, without a band.
    if len({run.seed for run in runs}) < max(SEEDS if is_pocket(recording.model) else 1, len(runs)):
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
    if any([one["name"] for one in run.measures] != [one["name"] for one in runs[0].measures] for run in runs):
        return "its runs were measured differently"
    return ""


def _run(found: Any, where: str) -> Run:
    need(found, {"seed": int, "curves": dict, "scores": dict}, where)
    curves = {name: _pairs(curve, f"{name[:40]} of {where}") for name, curve in found["curves"].items()}
    scores = {name: _pair(score, f"{name[:40]} of {where}") for name, score in found["scores"].items()}
    peak, seconds = (_number(found.get(name), f"{name} of {where}") for name in ("peak_memory_bytes", "seconds"))
    if not isinstance(measures := found.get("measures", []), list):
        raise Wrong(f"the measures of {where} are no list")
    measures = tuple(_measure(one, f"measure {number} of {where}") for number, one in enumerate(measures, 1))
    whole = _number(found.get("wall_seconds", 0), f"wall_seconds of {where}")
    return Run(found["seed"], curves, scores, int(peak), seconds, measures, whole)


def _measure(found: Any, where: str) -> dict[str, Any]:
    need(found, {"name": str, "interval": list}, where)
    made = {"name": found["name"], "interval": list(_pair(found["interval"], f"interval of {where}"))}
    made |= {name: _number(found.get(name), f"{name} of {where}") for name in ("before", "after", "n")}
    likelier = found.get("likelier")
    return made | {"likelier": None if likelier is None else _number(likelier, f"likelier of {where}")}


def _fingerprint(found: Any) -> dict[str, dict[str, str]]:
    if found:
        need(found, {"weights": dict, "rows": dict}, "fingerprint")
        for part in ("weights", "rows"):
            need(found[part], {"name": str, "sha": str}, f"{part} of fingerprint")
    return {part: {key: str(value) for key, value in found[part].items()} for part in found and ("weights", "rows")}


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
    need(found, dict.fromkeys(("prompt", "before", "after"), str), where)
    kind = str(found.get("kind", ""))
    if kind and "count" in found:
        kind += f", {found['count']} of {found.get('of')}"
    return {"kind": kind, **{name: found[name] for name in SAMPLE[1:]}}


def _number(value: Any, where: str) -> float:
    """A number that a picture can show; beyond 1e15 is no loss, no reward and no score of this course."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
        raise Wrong(f"{where} holds {str(value)[:40]!r} where a number is due")
    return float(value)
