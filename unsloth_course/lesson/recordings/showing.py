"""A recording to look at."""

from dataclasses import dataclass
from pathlib import Path

from unsloth_course.core import markup
from unsloth_course.core.writing import cut, in_columns
from unsloth_course.lesson import plots
from unsloth_course.lesson.memory import size
from unsloth_course.lesson.recordings.files import RECORDED, read
from unsloth_course.lesson.recordings.recorded import Recording, from_to

SAMPLE = ("kind", "prompt", "before", "after")
LONGEST = 160  # characters of a sample's text that are shown; slides have room for no more
HELD_OUT = "held out"  # how the name of a run's own score begins, which its measures hold too


@dataclass(frozen=True)
class Shown:
    """A recording to look at: its picture, and a table of what it cost and what the model answered."""

    recording: Recording

    def picture(self) -> plots.Picture:
        """The curve of the first recorded run, over the band of all where they make one. Wants a recording."""
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
        recording, runs = self.recording, self.recording.runs
        rows = {name: str(found) for name, found in recording.measures().items()}
        for name in [name for name in runs[0].scores if not (rows and name.startswith(HELD_OUT))]:
            before, after = ([run.scores[name][end] for run in runs] for end in (0, 1))
            rows[name.replace("_", " ")] = (
                f"{from_to(before, '{:.4g}'.format)} before, {from_to(after, '{:.4g}'.format)} after"
            )
        names = ("unsloth", "torch", "trl")
        rows |= {
            "peak memory": from_to([run.peak_memory_bytes for run in runs], size),
            "training": f"{recording.steps} steps, {from_to([run.seconds for run in runs], '{:.1f}'.format)} s",
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
            rows["training"] += f"; the whole lesson {from_to([run.wall_seconds for run in runs], '{:.0f}'.format)} s"
        return rows

    def samples(self) -> list[dict[str, str]]:
        """The samples as texts by `SAMPLE`; the kind says how many answers are of it, where that is known."""
        found = []
        for sample in self.recording.samples:
            kind = sample.get("kind", "")
            if kind and "count" in sample:
                kind += f", {sample['count']} of {sample['of']}"
            found.append(
                dict.fromkeys(SAMPLE, "")
                | {name: cut(sample[name], LONGEST, " …") for name in SAMPLE[1:]}
                | {"kind": kind}
            )
        return found

    def _repr_html_(self) -> str:
        if not self.recording:
            return markup.paragraphs([self.recording.why])
        parts = [markup.table(self.rows().items())]
        if samples := self.samples():
            columns = [name for name in SAMPLE if any(sample[name] for sample in samples)]
            cells = ([markup.code(sample[name].strip()) for name in columns] for sample in samples)
            parts.append(markup.table(cells, columns))
        return "".join(parts)

    def __repr__(self) -> str:
        if not self.recording:
            return self.recording.why
        lines = [in_columns([*self.rows().items()])]
        for sample in self.samples():
            kind = f"{sample['kind']}: " if sample["kind"] else ""
            lines.append(f"{kind}{sample['prompt']!r}\n    before {sample['before']!r}\n    after  {sample['after']!r}")
        return "\n".join(lines)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self.recording:
            display(self.picture())
        display({"text/html": self._repr_html_(), "text/plain": str(self)}, raw=True)


def show(lesson: str, profile: str, folder: Path = RECORDED) -> Shown:
    """The recorded run of a lesson, to look at on any machine: curve, measures, samples, memory, seconds, device.

    lesson: such as "lora". profile: "cpu" or "gpu". It is that of SmolLM2 where one is recorded, and else that of the
    bundled model; where nothing is, a sentence. Taught in all five lessons.
    """
    return Shown(read(lesson, profile, folder, real=True) or read(lesson, profile, folder))
