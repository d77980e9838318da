"""A line of the doctor's report, and the advice that goes with what failed."""

from __future__ import annotations

from dataclasses import dataclass

from unsloth_course.commands.doctor.facts import Facts
from unsloth_course.setup.deciding import quoted, set_up_command


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` is what to do when `ok` is False, else a note or empty."""

    name: str
    tested: str
    found: str
    ok: bool
    advice: str = ""


def judged(name: str, tested: str, found: str, wrong: str) -> Check:
    """A line that failed if there is anything wrong: what to do about it."""
    return Check(name, tested, found, not wrong, wrong)


def steps(sentence: str, *commands: str) -> str:
    """Advice: a sentence, and each command on a line of its own, to be copied."""
    return "\n".join([f"{sentence}:", *(f"    {command}" for command in commands)])


def set_up_again(facts: Facts, why: str = "") -> str:
    return steps(
        f"{why}run the set-up again in the course's folder; it puts the tested versions back",
        set_up_command(facts.system),
    )


def pip(facts: Facts, command: str) -> str:
    return f"{quoted(facts.executable, facts.windows)} -m pip {command}"


def repair(facts: Facts, why: str, name: str, tested: str) -> str:
    """Advice for a package that lacks or has a wrong version; "" in `tested` for any version."""
    if facts.course_venv:
        return set_up_again(facts, why)
    pin = f"{name}=={tested}" if tested else name
    return steps(f"{why}install the tested version", pip(facts, f"install --no-deps {pin}"))


def unset(facts: Facts, name: str, why: str) -> str:
    return steps(why, f"Remove-Item Env:{name}" if facts.windows else f"unset {name}")


def set_to(facts: Facts, name: str, value: str, why: str) -> str:
    words = quoted(value, facts.windows)
    return steps(why, f"$env:{name} = {words}" if facts.windows else f"export {name}={words}")
