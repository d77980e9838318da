"""Says whether this machine can run the lessons: versions, torch's build, environment, Hub cache, disk and the like.

The tested versions are those of requirements.txt; which others Unsloth accepts is read from the packages' own metadata.
VENV_SETUP.md lists the faults that are found.
"""

import json
import textwrap
from dataclasses import asdict, dataclass, replace

from unsloth_course.commands.doctor.checks import Check, repair, run_checks
from unsloth_course.commands.doctor.facts import Facts, gather, one_line, tried

__all__ = ["Check", "Facts", "Report", "examine", "gather", "run_checks", "show"]


@dataclass(frozen=True)
class Report:
    """The profile, the reason for it, and the checks."""

    profile: str
    reason: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """`{"profile", "reason", "checks": [{"name", "tested", "found", "ok", "advice"}]}` as text."""
        return json.dumps(asdict(self), indent=2)


def examine(facts: Facts | None = None) -> Report:
    here, facts = facts is None, facts or gather()
    failed = []
    try:
        profile, reason = _detected()
        facts = replace(facts, **tried()) if here else facts
    except Exception as error:  # a doctor that falls ill over a broken torch would be of no use
        advice = "torch does not load; mend the failed checks below first"
        if all(check.ok for check in run_checks(facts, "cpu")):
            advice = repair(facts, "torch does not load: ", "torch", facts.installed.get("torch", ""))
        failed = [Check("profile", "cpu or gpu", one_line(error), False, advice)]
        profile, reason = "cpu", "the machine could not be examined"
    return Report(profile, reason, failed + run_checks(facts, profile))


def _detected() -> tuple[str, str]:
    from unsloth_course.lesson import profile as profiles

    found = profiles.decide(profiles.facts())  # not `detect`: that asks for Unsloth, which the checks tell apart
    reasons = [choice for choice in found.reasons if choice.what == "profile"] or list(found.reasons)
    return found.name, "; ".join(f"{choice.what} {choice.value}: {choice.why}" for choice in reasons)


def show(report: Report, console: object | None = None) -> None:
    """Prints the report to `console` (a rich Console; else standard output), a line per check with its advice below.

    Sentences are broken between words; commands, which are indented in the advice, are not, so that they can be copied.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    console.print(Text(f"profile {report.profile} ({report.reason})"), soft_wrap=True)
    width = max((len(check.name) for check in report.checks), default=0)
    for check in report.checks:
        line = Text("[OK]   " if check.ok else "[FAIL] ", style="green" if check.ok else "bold red")
        line.append(f"{check.name:<{width}}  {check.found}", style="default")
        if check.tested and check.tested != check.found:
            line.append(f"  (tested: {check.tested})", style="dim")
        console.print(line, soft_wrap=True)
        for advice in check.advice.splitlines():
            command = advice.startswith("    ")
            room = max(console.width - 8, 40)
            parts = [advice] if command else textwrap.wrap(advice, room, break_long_words=False, break_on_hyphens=False)
            for part in parts:
                console.print(Text(f"       {part}", style="bold" if command else ""), soft_wrap=True)
    failed = [check.name for check in report.checks if not check.ok]
    said = f"{len(failed)} of {len(report.checks)} checks failed: {', '.join(failed)}." if failed else "All is well."
    console.print(Text(said), soft_wrap=True)
