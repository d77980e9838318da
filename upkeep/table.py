"""Makes the tables of README.md and docs/results.md from `benchmarks/recorded/*.json`, results files of recorded runs.

    python upkeep/table.py            # prints them
    python upkeep/table.py --write    # puts them into these pages, between their markers

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. A lesson that nobody has recorded yet says so.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import nbformat

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDED = REPOSITORY / "benchmarks" / "recorded"
PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "results.md")
sys.path.insert(0, str(REPOSITORY))

from unsloth_course import exercises  # noqa: E402 -- found only now
from unsloth_course.commands.colab.address import address, badge  # noqa: E402
from unsloth_course.core.lessons import notebook_path  # noqa: E402
from unsloth_course.lesson.memory import size  # noqa: E402
from unsloth_course.lesson.profile import is_pocket  # noqa: E402
from unsloth_course.lesson.recordings import Measured, rounded  # noqa: E402
from unsloth_course.lesson.scoreboard import SCORES  # noqa: E402
from unsloth_course.studio import clock  # noqa: E402

sys.path.insert(0, str(REPOSITORY / "upkeep"))
from record import measures as measures_of  # noqa: E402

# In learning order: what it is called, what its notebook teaches, and what the method is for.
LESSONS = {
    "lora": (
        "LoRA",
        "rank, alpha, target modules, masking, merging; how to know that it trained",
        "first choice for teaching a task: small file, base untouched, several adapters for one base",
    ),
    "full": (
        "full fine-tuning",
        "all weights, and what that costs beside LoRA; checkpointing, measured; why low rank suffices",
        "when the adapter is too small for what has to change, and memory and disk are there",
    ),
    "cpt": (
        "continued pretraining",
        "a new domain from raw text, forgetting and replay, new words for the vocabulary",
        "when the model lacks the language of a field, before it is taught any task in it",
    ),
    "dpo": (
        "DPO",
        "learning from preferences; what beta does; why margins prove nothing",
        "when the answers are right and the way of answering is not, and pairs can be had",
    ),
    "grpo": (
        "GRPO",
        "learning from rewards that a program can verify; groups, advantages, loopholes",
        "when answers can be checked by a program and the model is sometimes right already",
    ),
}
UNRECORDED = "not recorded yet"


def recorded(folder: Path = RECORDED) -> list[dict[str, Any]]:
    """The recorded results, those of the real model first; by lesson in learning order, then by device and seed."""
    others = ("gpu-", "convert-", "formats-")  # those of page.py, and figures that are of no lesson
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith(others))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    order = ["base", *LESSONS]
    return sorted(
        runs,
        key=lambda run: (
            is_pocket(run["model"]),
            "stands_for" in run,
            order.index(run["lesson"]),
            run["device"],
            run["model"],
            run.get("seed", 0),
        ),
    )


# Numbers as text


def _number(value: float, metric: str) -> str:
    if "perplexity" in metric:
        return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
    return f"{100 * value:.1f} %"


def _change(score: dict[str, Any] | None, metric: str | None = None) -> str:
    """`0.0 % → 95.5 %`; a perplexity is a plain number."""
    if not score:
        return "–"
    metric = metric or score["metric"]
    return f"{_number(score['before'], metric)} → {_number(score['after'], metric)}"


def took(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of the training and of all cells, on average: of the runs that had the device alone, where any had."""
    alone = [run for run in runs if run.get("beside", 1) == 1] or runs
    return mean(run["training"]["seconds"] for run in alone), mean(run["wall_seconds"] for run in alone)


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def _spread(values: Iterable[float], written: Callable[[float], str]) -> str:
    """The mean over the seeds, and from where to where it goes where that can be seen."""
    values = list(values)
    middle, low, high = written(mean(values)), written(min(values)), written(max(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def _table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [" | ".join(headers), *(" | ".join(row) for row in rows)]
    lines.insert(1, "|".join("---" for _ in lines[0].split(" | ")))
    return "\n".join(f"| {line} |" if n != 1 else f"|{line}|" for n, line in enumerate(lines))


# The tables


def lessons(runs: list[dict[str, Any]]) -> str:
    """One row per lesson: notebook, what it teaches, how long it took on a CPU and on a GPU, exercises, its video."""
    taken = {profile: [run for run in runs if run["profile"] == profile] for profile in ("cpu", "gpu")}
    taken["gpu"] = on_a_whole_gpu(taken["gpu"])
    devices, gpus = (sorted({run["device"] for run in found}) for found in taken.values())
    rows = []
    for lesson, (name, teaches, _) in LESSONS.items():
        notebook = notebook_path(lesson)
        made = ([run for run in found if run["lesson"] == lesson] for found in taken.values())
        cells = (
            name,
            f"[{notebook.name}](../notebooks/{notebook.name})",
            teaches,
            *(_minutes(took(runs)[1]) if runs else UNRECORDED for runs in made),
            str(_exercises(lesson)),
            f"[{clock.board(lesson, nbformat.read(notebook, as_version=4)).minutes:.0f} min](recording.md)",
            badge(notebook.name, address()),
        )
        rows.append(cells)
    where = (f"on {' or '.join(found) or what}" for found, what in ((devices, "a CPU"), (gpus, "a GPU")))
    return _table(("lesson", "notebook", "what it teaches", *where, "exercises", "storyboard", "in Colab"), rows)


def real_runs(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of the real model."""
    return [run for run in runs if not is_pocket(run["model"]) and run["lesson"] != "base"]


def on_a_whole_gpu(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the real model on a GPU that was not made to look like a smaller one."""
    return [run for run in real_runs(runs) if "stands_for" not in run]


def judge_of(made: list[dict[str, Any]]) -> Measured:
    """The measure that the verdict follows, over the seeds."""
    return Measured(*over_the_seeds(made)[0])


def scored(judge: Measured) -> str:
    """Its name, and its value before and after."""
    return f"{judge.name.replace('_', ' ')} {judge.value('before')} → {judge.value('after')}"


def front(runs: list[dict[str, Any]]) -> str:
    """What the real model learned on a whole GPU, by the measure that the verdict follows: the README's one table."""
    rows = []
    whole = on_a_whole_gpu(runs)
    for lesson, (name, *_) in LESSONS.items():
        if made := [run for run in whole if run["lesson"] == lesson]:
            judge = judge_of(made)
            rows.append((name, scored(judge), judge.interval))
    return _table(("lesson", "on held-out rows", "95 % interval of the difference"), rows)


def real(runs: list[dict[str, Any]]) -> str:
    """What the real model learned in each lesson, by the measure that the verdict follows, and what that took."""
    parts = []
    for found in _groups(real_runs(runs)).values():
        rows = []
        for lesson, made in found.items():
            judge = judge_of(made)
            rows.append(
                (
                    LESSONS[lesson][0],
                    ", ".join(str(run["seed"]) for run in made),
                    f"{judge.name.replace('_', ' ')}, n = {judge.n}",
                    f"{judge.value('before')} → {judge.value('after')}",
                    judge.interval,
                    judge.likelier or "–",
                    f"{made[0]['parameters']['trainable']:,}",
                    size(mean(run["training"]["peak_memory_bytes"] for run in made)),
                    f"{took(made)[0]:.0f} s",
                    _minutes(took(made)[1]),
                )
            )
        headers = ("lesson", "seeds", "measure", "before → after", "95 % interval of the difference", "likelier")
        headers += ("trained parameters", "peak memory", "training", "all cells")
        parts.append(f"{_headed(found, _table(headers, rows))}\n\n{_of_what(found)}")
    return "\n\n".join(parts) or f"{UNRECORDED.capitalize()}: `benchmarks/real_lessons.py` does it."


def measures(runs: list[dict[str, Any]]) -> str:
    """Every measure of the real model's lessons, over the seeds."""
    parts = []
    for found in _groups(real_runs(runs)).values():
        rows = []
        for lesson, made in found.items():
            for name, each in over_the_seeds(made):
                one = Measured(name, each)
                change = f"{one.value('before')} → {one.value('after')}"
                rows.append((LESSONS[lesson][0], name.replace("_", " "), one.n, change, one.interval))
            for group in made[0].get("apart", {}):
                apart = [_from_the_coin(run["apart"][group]) for run in made]
                one = Measured("preference_accuracy", apart)
                change = f"{one.value('before')} → {one.value('after')}"
                what = f"preference accuracy, {group}"
                rows.append((LESSONS[lesson][0], what, one.n, change, one.interval))
            if kept := [run["evaluation"]["retention"] for run in made if run["evaluation"]["retention"]]:
                one = Measured(kept[0]["metric"], kept)
                change = f"{one.value('before')} → {one.value('after')}"
                text = one.name.endswith("perplexity")
                if one.name != "chat_perplexity":  # that one is among the measures
                    what = "general perplexity" if text else "untouched skills"
                    rows.append((LESSONS[lesson][0], what, "–", change, "–"))
        headers = ("lesson", "measure", "n", "before → after", "95 % interval of the difference")
        parts.append(_headed(found, _table(headers, rows)))
    return "\n\n".join(parts) or f"{UNRECORDED.capitalize()}."


def _from_the_coin(group: dict[str, Any]) -> dict[str, Any]:
    """A group of pairs as a measure: its accuracy beside a coin's."""
    change = [end - 0.5 for end in group["interval"]]
    return {"n": group["n"], "before": 0.5, "after": group["preference_accuracy"], "interval": change}


def over_the_seeds(made: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each measure with what the runs have of it, the judging one first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in made:
        for measure in measures_of(run["evaluation"]):
            found.setdefault(measure["name"], []).append(measure)
    return list(found.items())


def _of_what(found: dict[str, list[dict[str, Any]]]) -> str:
    """Which weights and rows these are, as the fingerprints have them."""
    prints = [run["fingerprint"] for made in found.values() for run in made]
    weights = {f"{one['weights']['name']} ({one['weights']['sha']})" for one in prints}
    kinds = {one["weights"].get("from") for one in prints} - {"", None}
    names = {}
    for lesson, made in found.items():
        names.setdefault(made[0]["fingerprint"]["rows"]["name"], []).append(LESSONS[lesson][0])
    rows = "; ".join(f"{', '.join(lessons)}: {name}" for name, lessons in names.items())
    text = (
        f"Weights: {', '.join(sorted(weights))}{''.join(f', {rounded(kind)}' for kind in sorted(kinds))}. Rows: {rows}."
    )
    beside = {run["seed"]: run.get("beside", 1) for made in found.values() for run in made}
    alone = [str(seed) for seed, count in beside.items() if count == 1]
    if max(beside.values()) == 1:
        return text
    if alone:
        return f"{text} The seconds are those of seed {' and '.join(alone)}, which had the GPU alone."
    return f"{text} {max(beside.values())} runs shared the GPU, so that each took longer than alone."


def _exercises(lesson: str) -> int:
    return sum(name.startswith(f"{lesson}.") for name in exercises.ALL)


def runs(runs: list[dict[str, Any]]) -> str:
    """One row per recorded run: its lesson, seed, scores and times."""
    rows = []
    for run in runs:
        if run["lesson"] == "base":
            continue
        score = run["evaluation"]
        judge, *others = (Measured(one["name"], [one]) for one in measures_of(score))
        told = [judge, *(one for one in others if one.name == score["metric"])]
        what = "; ".join(f"{one.name.replace('_', ' ')} {one.value('before')} → {one.value('after')}" for one in told)
        if score.get("correctness"):
            what += f"; right {_change(score['correctness'], 'share')}"
        if run["receipt"]["verdict"] != "trained":
            what += f" ({run['receipt']['verdict']})"
        kept = _change(score["retention"])
        if score["retention"] and score["retention"]["metric"].endswith("perplexity"):
            chat = score["retention"]["metric"] == "chat_perplexity"
            kept = f"{'chat' if chat else 'general'} perplexity {kept}"
        times = (f"{run['training']['seconds']:.0f} s", f"{run['wall_seconds']:.0f} s")
        rows.append(
            (LESSONS[run["lesson"]][0], f"{run['device']}, {run['model']}", str(run["seed"]), what, kept, *times)
        )
    headers = ("lesson", "device, model", "seed", "held-out score", "untouched skills", "training", "whole command")
    return _table(headers, rows)


def _groups(runs: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """Runs by device and model, which alone can be compared, and in that by lesson."""
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        found.setdefault((run["device"], run["model"]), {}).setdefault(run["lesson"], []).append(run)
    return found


def _headed(found: dict[str, list[dict[str, Any]]], table: str) -> str:
    runs = [run for made in found.values() for run in made]
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs if "seed" in run})))
    standing = next((f" (in place of {run['stands_for']})" for run in runs if "stands_for" in run), "")
    return f"On {runs[0]['device']}{standing}, model {runs[0]['model']}, seeds {seeds}:\n\n{table}"


def matrix(runs: list[dict[str, Any]]) -> str:
    """What each method costs, measured, and when to use it: one table per device and model."""
    parts = []
    for found in _groups(runs).values():
        rows = []
        for lesson, (name, _, use) in LESSONS.items():
            made = found.get(lesson)
            costs = _costs(made) if made else (UNRECORDED, *3 * ["–"])
            rows.append((name, *costs, use))
        headers = ("method", "trained parameters", "file", "peak memory", "training", "when to use it")
        parts.append(_headed(found, _table(headers, rows)))
    return "\n\n".join(parts)


def _costs(made: list[dict[str, Any]]) -> tuple[str, str, str, str]:
    trained = made[0]["parameters"]["trainable"]
    share = trained / made[0]["parameters"]["total"]
    files = [run["file_bytes"] for run in made if run.get("file_bytes")]
    return (
        f"{trained:,} ({share:.1%})",
        _spread(files, size) if files else "–",
        size(mean(run["training"]["peak_memory_bytes"] for run in made)),
        f"{took(made)[0]:.0f} s",
    )


def scoreboard(runs: list[dict[str, Any]]) -> str:
    """Every method's scores on the same battery, mean and range over the seeds: one table per device and model."""
    parts = []
    for found in _groups(runs).values():
        rows = []
        for lesson in ("base", *LESSONS):
            batteries = [run["battery"] for run in found.get(lesson, ()) if run.get("battery")]
            cells = [_battery_cell(batteries, name) for name in SCORES] if batteries else [UNRECORDED, *6 * ["–"]]
            rows.append(("base model" if lesson == "base" else LESSONS[lesson][0], *cells))
        headers = ("", *(measure.title for measure in SCORES.values()))
        parts.append(_headed(found, _table(headers, rows)))
    return "\n\n".join(parts)


def _battery_cell(batteries: list[dict[str, Any]], name: str) -> str:
    values = [battery[name]["value"] for battery in batteries if battery[name]["value"] is not None]
    return _spread(values, lambda value: _number(value, name)) if values else "not measured"


TABLES = {
    "front": front,
    "lessons": lessons,
    "real": real,
    "measures": measures,
    "matrix": matrix,
    "scoreboard": scoreboard,
    "runs": runs,
}
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, runs: list[dict[str, Any]]) -> str:
    """A page with each table between its markers made anew. Raises KeyError for a marker that no table has."""
    return MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]](runs)}\n{match[3]}", text)


def main() -> None:
    """Prints the tables, or writes them into their pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into their pages")
    if parser.parse_args().write:
        for page in PAGES:
            page.write_text(filled(page.read_text(encoding="utf-8"), recorded()), encoding="utf-8")
    else:
        print("\n\n".join(f"{name}\n\n{table(recorded())}" for name, table in TABLES.items()))


if __name__ == "__main__":
    main()
