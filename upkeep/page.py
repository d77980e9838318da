"""Makes the tables and the picture of `benchmarks/README.md` from the recorded GPU figures.

    python upkeep/page.py            # prints the tables
    python upkeep/page.py --write    # puts them into benchmarks/README.md, between their markers, and draws

It reads `recorded/gpu-speed.json` (`speed.py`) and `recorded/gpu-two.json` (`two_gpus.py`).
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDED = REPOSITORY / "benchmarks" / "recorded"
PAGE = REPOSITORY / "benchmarks" / "README.md"
PICTURE = REPOSITORY / "docs" / "pictures" / "gpu-speed.png"
sys.path.insert(0, str(REPOSITORY))

METHODS = {"lora": "LoRA", "full": "full", "dpo": "DPO", "cpt": "continued pretraining"}
GIB = 2**30
# Datasheet peak of dense bfloat16 products, operations a second.
PEAK = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12}
PARAMETERS = 134_515_008
BUDGET = 12 * GIB  # what a plain leg may use, as the lessons may
COPIED = "seeds"  # the records' name for the setting that public notebooks copy: 2 x 4, Unsloth's checkpointing

Leg = dict[str, Any]


def legs(record: dict[str, Any], method: str) -> dict[str, Leg]:
    """The compared legs of a method that were measured, by name."""
    return {leg["name"]: leg for leg in record["compared"] if leg["method"] == method and "failed" not in leg}


def rows_of(leg: Leg) -> int:
    """Rows of one update."""
    return leg["micro"] * leg["accumulation"]


def milliseconds(leg: Leg) -> float:
    """Time of an update: the median, which one slow update among ten does not move.

    Of a leg that is evaluated on the way it is the mean: the time between two of its updates counts the evaluations.
    """
    return leg["ms_per_update"] if leg["evaluate_every"] else leg["ms_median"]


def tokens_a_second(leg: Leg) -> float:
    """Tokens of text that go through the training in a second; padding is not counted."""
    return rows_of(leg) * leg["tokens_per_row"] * 1000 / milliseconds(leg)


def best_plain(found: dict[str, Leg]) -> Leg | None:
    """The fastest of plain TRL's settings that stays within the memory."""
    plain = [leg for leg in found.values() if leg["way"] == "plain" and leg["peak_bytes"] <= BUDGET]
    return max(plain, key=tokens_a_second, default=None)


def seconds_to(leg: Leg, target: float) -> float | None:
    """Seconds of training until the held-out loss is at the target; None if it never was."""
    return next((seconds for _, seconds, loss in leg["curve"] if loss <= target), None)


def beforehand(found: dict[str, Leg], leg: Leg) -> float:
    """Seconds that a plan spends before the first update and the copied setting does not: DPO's reference answers."""
    return max(0.0, leg["prepare_seconds"] - found[COPIED]["prepare_seconds"]) if leg["method"] == "dpo" else 0.0


def ratios(record: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The ratios of each method that the page claims; None where a leg that it needs is not measured."""
    made = {}
    for method in METHODS:
        found = legs(record, method)
        copied, plan, free, plain = found.get(COPIED), found.get("plan"), found.get("plan, free"), best_plain(found)
        planned = [leg for leg in (plan, free) if leg]
        reached = seconds_to(free, copied["curve"][-1][2]) if copied and free else None
        made[method] = {
            "update": milliseconds(copied) / milliseconds(plan) if copied and plan else None,
            "quality": copied["seconds"] / (reached + beforehand(found, free)) if reached else None,
            "plain": max(map(tokens_a_second, planned)) / tokens_a_second(plain) if planned and plain else None,
        }
    return made


def times(ratio: float | None) -> str:
    """A ratio as the tables write it."""
    return f"{ratio:.3g}x" if ratio else ""


def speed(record: dict[str, Any]) -> str:
    """Every leg: time of an update, tokens, memory."""
    lines = [
        "| method | leg | rows | ms per update | copied / this | tokens/s | this / plain's best | peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, title in METHODS.items():
        found = legs(record, method)
        plain, copied = best_plain(found), found.get(COPIED)
        for name, leg in found.items():
            same = copied and rows_of(leg) == rows_of(copied)
            cells = [
                title,
                TITLES.get(name, name),
                f"{leg['micro']} x {leg['accumulation']}",
                f"{milliseconds(leg):.0f}",
                times(milliseconds(copied) / milliseconds(leg)) if same else "",
                f"{tokens_a_second(leg):,.0f}",
                times(tokens_a_second(leg) / tokens_a_second(plain)) if plain else "",
                f"{leg['peak_bytes'] / GIB:.2f} GiB",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        missing = [leg["name"] for leg in record["compared"] if leg["method"] == method and "failed" in leg]
        lines += [f"| {title} | {TITLES.get(name, name)} | not measured: out of memory |||||| " for name in missing]
    return "\n".join(lines)


TITLES = {
    COPIED: "the copied setting",
    "plan": "**the plan**",
    "plan, free": "**the plan, with more rows**",
    "plain 8": "plain TRL + PEFT",
    "plain 12": "plain TRL + PEFT",
    "plain 24": "plain TRL + PEFT",
    "Unsloth 8 x 1": "Unsloth as it comes",
}


def quality(record: dict[str, Any]) -> str:
    """Seconds until the held-out loss that the copied setting ends with."""
    lines = [
        "| method | held-out loss | the copied setting | the plan | with more rows | they are faster by |",
        "|---|---|---|---|---|---|",
    ]
    for method, title in METHODS.items():
        found = legs(record, method)
        copied = found.get(COPIED)
        if not copied:
            continue
        target = copied["curve"][-1][2]
        cells = [title, f"{copied['loss_before']:.3f} -> {target:.3f}", f"{copied['seconds']:.1f} s"]
        cells += [_reached(found, found.get(name), target) for name in ("plan", "plan, free")]
        lines.append(f"| {' | '.join([*cells, times(ratios(record)[method]['quality'])])} |")
    return "\n".join(lines)


def _reached(found: dict[str, Leg], leg: Leg | None, target: float) -> str:
    if leg is None:
        return "not measured"
    reached, extra = seconds_to(leg, target), beforehand(found, leg)
    if reached is None:
        return f"not within {leg['updates_done']} updates"
    return f"{reached:.1f} s" + (f" + {extra:.1f} s for the reference" if extra else "")


def completions(record: dict[str, Any]) -> str:
    """GRPO: completions of 128 tokens a second."""
    found = legs(record, "grpo")
    base = rows_of(found["8 x 1"]) * 1000 / milliseconds(found["8 x 1"])
    lines = [
        "| leg | completions an update | ms per update | completions/s | updates/s | peak | against 8 x 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, leg in found.items():
        rate = rows_of(leg) * 1000 / milliseconds(leg)
        lines.append(
            f"| {TITLES.get(name, name)} | {rows_of(leg)} | {milliseconds(leg):.0f} | {rate:.1f} | "
            f"{1000 / milliseconds(leg):.2f} | {leg['peak_bytes'] / GIB:.2f} GiB | {rate / base:.1f}x |"
        )
    return "\n".join(lines)


def misses(record: dict[str, Any]) -> list[float]:
    """Predicted over measured peak, less one, of every measured point."""
    return [leg["predicted_bytes"] / leg["peak_bytes"] - 1 for leg in record["memory"] if "failed" not in leg]


def weighed(record: dict[str, Any]) -> str:
    """Predicted and measured peak memory."""
    lines = ["| method | 512 tokens | 1,024 tokens | 2,048 tokens |", "|---|---|---|---|"]
    points = {(leg["method"], leg["length"]): leg for leg in record["memory"] if "failed" not in leg}
    for method, title in (METHODS | {"grpo": "GRPO"}).items():
        cells = []
        for length in (512, 1024, 2048):
            leg = points.get((method, length))
            if leg is None:
                cells.append("not measured")
                continue
            predicted, measured = leg["predicted_bytes"] / GIB, leg["peak_bytes"] / GIB
            cells.append(f"{predicted:.2f} / {measured:.2f} GiB ({predicted / measured - 1:+.0%})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def operations(leg: Leg, parameters: int) -> float:
    """Operations of an update that are about text: two for each parameter and token in the forward pass, two in the
    backward pass for the activations and, where all weights are trained, two for the weights."""
    each = 6 if leg["method"] == "full" else 4
    return each * parameters * rows_of(leg) * leg["tokens_per_row"]


def growth(record: dict[str, Any]) -> str:
    """How the cost of an update grows, and which share of the chip's arithmetic is reached."""
    peak = PEAK.get(record["device"])
    lines = [
        "| LoRA, planned | ms per update | tokens/s | peak | share of the chip's bfloat16 peak |",
        "|---|---|---|---|---|",
    ]
    sizes = {"3.4M parameters": 3_410_176, "362M parameters": 361_821_120}
    plan = legs(record, "lora").get("plan")
    for leg in [*([plan] if plan else []), *record["scaled"]]:
        if "failed" in leg:
            continue
        name = "8 rows of up to 512 tokens, 134.5M parameters" if leg["name"] == "plan" else leg["name"]
        rate = operations(leg, sizes.get(leg["name"], PARAMETERS)) / (milliseconds(leg) / 1000)
        share = f"{rate / peak:.1%}" if peak else "the peak of this device is not listed"
        cells = [f"{milliseconds(leg):.0f}", f"{tokens_a_second(leg):,.0f}", f"{leg['peak_bytes'] / GIB:.2f} GiB"]
        lines.append(f"| {' | '.join([name, *cells, share])} |")
    return "\n".join(lines)


def two(record: dict[str, Any]) -> str:
    """Two GPUs against one."""
    if not record:
        return "Not measured yet."
    lines = [
        "| method | one GPU, samples/s | two GPUs, samples/s | ratio | loss curve of two |",
        "|---|---|---|---|---|",
    ]
    for method, found in record["methods"].items():
        inside = "inside the band of three seeds" if found["inside"] else "outside the band of three seeds"
        paces = [f"{found[name]['samples_per_second']:,.0f}" for name in ("one", "two")]
        lines.append(f"| {' | '.join([METHODS[method], *paces, times(found['ratio']), inside])} |")
    where = (
        f"{record['device']}, {record['date'][:10]}; {record['model']}; {record['rows']} rows of 512 tokens an update"
    )
    if killed := record.get("killed"):
        left = len(killed["left_running"])
        lines += [
            "",
            f"One of two processes was killed in the midst of a training on {killed['date'][:10]}. The command ended",
            f"after {killed['seconds']:.1f} s with status {killed['status']}, left {left} processes running, and said:",
            "",
            *(f"> {sentence}" for sentence in killed["sentences"]),
        ]
    return f"{where}.\n\n" + "\n".join(lines)


def machine(record: dict[str, Any]) -> str:
    """Where and with what the figures were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"One {record['device']}, {record['date']}; {versions}. Trained was {record['model']}."


def draw(record: dict[str, Any], path: Path) -> None:
    """Time of an update of 8 rows, one group of bars a method, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = {
        COPIED: "the copied setting, 2 x 4",
        "plain 8": "plain TRL + PEFT, 8 x 1",
        "plan": "the plan, 8 x 1",
    }
    colours = ("#D55E00", "#999999", "#0072B2")
    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    for number, (name, label) in enumerate(shown.items()):
        drawn = [legs(record, method).get(name) for method in METHODS]
        values = [milliseconds(leg) if leg else None for leg in drawn]
        places = [at + (number - 1) * 0.27 for at, value in enumerate(values) if value]
        bars = axes.bar(places, [value for value in values if value], 0.25, label=label, color=colours[number])
        axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks(range(len(METHODS)), METHODS.values())
    axes.set_xlim(-0.5, len(METHODS) - 0.5)
    axes.set_yscale("log")
    axes.set_yticks([20, 50, 100, 200, 500, 1000, 2000], ["20", "50", "100", "200", "500", "1,000", "2,000"])
    axes.minorticks_off()
    axes.set_ylim(top=3500)
    axes.set(ylabel="ms per update of 8 rows", title=f"SmolLM2-135M's shape on one {record['device']}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def read(name: str) -> dict[str, Any]:
    """A record, or nothing where none lies in the folder."""
    path = RECORDED / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its marker."""
    record = read("gpu-speed.json")
    made = {"two": two(read("gpu-two.json"))}
    for name, make in {
        "machine": machine,
        "speed": speed,
        "quality": quality,
        "completions": completions,
        "memory": weighed,
        "growth": growth,
    }.items():
        made[name] = make(record) if record else "Not measured yet."
    return made


def filled(page: str, found: dict[str, str]) -> str:
    """The page with each table between its markers."""
    for name, table in found.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.S)
        page, count = pattern.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
        if count != 1:
            raise SystemExit(f"{PAGE.name} has {count} places for the table {name}; it needs exactly one.")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/README.md and its picture")
    if not parser.parse_args().write:
        print("\n\n".join(f"{name}\n{table}" for name, table in tables().items()))
        return 0
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
    if record := read("gpu-speed.json"):
        draw(record, PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
