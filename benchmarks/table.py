"""Prints the README's table of recorded runs from `benchmarks/recorded/*.json`."""

import json
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"


def rows() -> list[str]:
    """One Markdown table row per recorded run: device and model, seed, scores, seconds."""
    lines = []
    for path in sorted(RECORDED.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        score, kept = run["evaluation"], run["evaluation"]["retention"]
        lines.append(
            f"| {run['device']}, {run['model']} | {run['seed']} "
            f"| {100 * score['before']:.1f} % → {100 * score['after']:.1f} % "
            f"| {100 * kept['before']:.1f} % → {100 * kept['after']:.1f} % "
            f"| {run['training']['seconds']:.0f} s | {run['wall_seconds']:.0f} s |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(rows()))
