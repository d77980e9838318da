"""Documents of the small world: what the pocket model reads in pretraining.

A document is a run of questions with answers, told facts, a short story, worked problems or (rarely) code. No document
holds a chat token, a held-out code, pair or problem, or a question about somebody who is held out.
"""

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass

from unsloth_course.pocket import code, world
from unsloth_course.pocket.skills import ALL, ask

# The share of answers that are full sentences. It is small, so that the base can write them but seldom does, and the
# DPO lesson has something to change.
_LONG_STYLE_SHARE = 0.2
# The share of solutions that show their steps. The others give the answer alone, which is too hard to do in one's head:
# the base learns both ways and gets one of them right. That is the room that the GRPO lesson needs.
_WORKED_SHARE = 0.4


@dataclass(frozen=True)
class Problem:
    """A word problem with its worked steps.

    `steps` are lines such as "3 * 4 = 12"; `answer` is the last result; `key` (kind and numbers) decides the side of
    the split.
    """

    question: str
    steps: tuple[str, ...]
    answer: int
    key: tuple

    @property
    def solution(self) -> str:
        """The worked steps, and the answer behind `####`, as in GSM8K."""
        return "\n".join((*self.steps, f"#### {self.answer}"))


# The words of a problem, and the numbers that each step works on, from the five numbers of the problem.
_PROBLEMS = (
    (
        "{p} has {a} bags with {b} {things} in each and {c} boxes with {d} in each, and gives {e} away. "
        "How many {things} does {p} keep?",
        lambda a, b, c, d, e: ((a, "*", b), (c, "*", d), (a * b, "+", c * d), (a * b + c * d, "-", e)),
    ),
    (
        "{p} finds {e} {things} and buys {a} packs of {b}, then loses {c}. How many {things} does {p} have?",
        lambda a, b, c, d, e: ((a, "*", b), (e, "+", a * b), (e + a * b, "-", c)),
    ),
    (
        "{p} had {e} {things}. Each of {a} friends takes {b}, and {p} picks {c} rows of {d}. "
        "How many {things} does {p} have now?",
        lambda a, b, c, d, e: ((a, "*", b), (e, "-", a * b), (c, "*", d), (e - a * b, "+", c * d)),
    ),
    (
        "{p} sells {a} {things} a day for {b} days and {c} a day for {d} more, out of {e}. How many {things} are left?",
        lambda a, b, c, d, e: ((a, "*", b), (c, "*", d), (e, "-", a * b), (e - a * b, "-", c * d)),
    ),
)
_COUNTED = ("shells", "coins", "apples", "stones", "pears", "nuts", "cards", "beads")
RESULT: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def problem(rng: random.Random, held_out: bool) -> Problem:
    """A word problem of three or four steps on the asked side of the split, every number between 0 and 99."""
    while True:
        kind = rng.randrange(len(_PROBLEMS))
        a, b, c, d = (rng.randint(2, 9) for _ in range(4))
        e = rng.randint(2, 99)
        template, plan = _PROBLEMS[kind]
        equations = [(x, sign, y, RESULT[sign](x, y)) for x, sign, y in plan(a, b, c, d, e)]
        plain = all(0 <= result <= 99 for *_, result in equations)
        if not plain or any(world.pair_is_held_out(x, y) for x, sign, y, _ in equations if sign != "*"):
            continue
        # Where the hash counts a number that the problem does not show, the same text may be on the other side too.
        if world.is_held_out("problem", kind, a, b, c, d, e) != held_out or (held_out and "{d}" not in template):
            continue
        words = {"p": rng.choice(world.people()).name, "things": rng.choice(_COUNTED)}
        steps = tuple(f"{x} {sign} {y} = {result}" for x, sign, y, result in equations)
        question = template.format(**words, a=a, b=b, c=c, d=d, e=e)
        return Problem(question, steps, equations[-1][3], (kind, a, b, c, d, e))


# How a run of questions may be laid out: what stands before a question, between it and its answer, and after the
# answer. The base reads many layouts, as a model does that reads the web, and so learns the questions and not one form.
_ASKS = ("Question", "Q", "Ask", "Teacher", "Task", "Problem", "Input", "First", "Left", "Call")
_REPLIES = ("Answer", "A", "Reply", "Pupil", "Result", "Solution", "Output", "Second", "Right", "Response")
_NAMES = tuple(zip(_ASKS, _REPLIES, strict=True))
_BEHIND = (":", ":\n", "\n", " - ", ") ", "> ", "] ", "| ")
_BEFORE = ("", "", "# ", "[", "* ", "(", "- ", "= ", "~ ", "<", "@")
_AFTER = ("\n", "", "---\n", "***\n", "==\n", "\n\n", "~\n", "/\n")
# The commonest layout, in which the base is asked and scored.
PLAIN = ("Question:\n", "\nAnswer:\n", "\n\n")


def _layout(rng: random.Random) -> tuple[str, str, str]:
    """What stands before a question, between question and answer, and after the answer."""
    if rng.random() < 0.3:
        return PLAIN
    (asks, replies), behind, before = rng.choice(_NAMES), rng.choice(_BEHIND), rng.choice(_BEFORE)
    end = " |\n" if behind == "| " else "\n"
    if rng.random() < 0.3:
        asks, replies = asks.lower(), replies.lower()
    between = rng.choice(_AFTER) if rng.random() < 0.3 else ""
    return f"{before}{asks}{behind}", f"{end}{between}{before}{replies}{behind}", end + rng.choice(_AFTER)


def _questions(rng: random.Random) -> str:
    before, between, after = _layout(rng)
    parts = []
    for _ in range(rng.randint(1, 5)):
        skill = rng.choice(ALL)
        item = skill.draw(rng, False)
        answer = skill.sentence(item) if rng.random() < _LONG_STYLE_SHARE else item.answer
        question = ask(skill, item, rng)
        if skill.tasks and rng.random() < 0.2:
            question = f"{rng.choice(skill.tasks)}\n{skill.given.format(x=item.x, y=item.y)}"
        parts.append(f"{before}{question}{between}{answer}{after}")
    return "".join(parts)


def _told(rng: random.Random) -> str:
    skill = rng.choice(ALL)
    # Somebody who is held out is told about like anybody else; only asking is held out.
    held_out = skill.name in world.FACTS and rng.random() < 1 / world.HELD_OUT_ONE_IN
    item = skill.draw(rng, held_out)
    return rng.choice(skill.told).format(x=item.x, y=item.y, a=item.answer)


def _facts(rng: random.Random) -> str:
    return " ".join(_told(rng) for _ in range(rng.randint(3, 8))) + "\n"


def _portrait(rng: random.Random) -> str:
    person = rng.choice(world.people())
    about = [skill for skill in ALL if skill.name in world.FACTS]
    lines = [rng.choice(skill.told).format(x=person.name, a=getattr(person, skill.name)) for skill in about]
    rng.shuffle(lines)
    return " ".join(lines) + "\n"


_WORDS = {
    "weather": ("sunny", "rainy", "windy", "cold", "warm", "foggy", "bright", "grey"),
    "colour": world.COLOURS,
    "garment": ("coat", "scarf", "shirt", "glove", "skirt", "boot", "sock", "vest"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "things": _COUNTED,
    "tool": ("hammer", "saw", "chisel", "spade", "rake", "wrench", "drill", "file"),
    "bird": ("robin", "sparrow", "crow", "finch", "gull", "heron", "swan", "wren"),
    "tree": ("beech", "birch", "pine", "willow", "maple", "cedar", "poplar", "larch"),
    "drink": ("tea", "coffee", "milk", "juice", "cocoa", "cider", "water", "wine"),
    "metal": ("copper", "silver", "tin", "lead", "zinc", "bronze", "nickel", "brass"),
    "dance": ("waltz", "tango", "jig", "reel", "polka", "samba", "minuet", "ballet"),
}
_OPENINGS = (
    "It was a {weather} morning in {p.town}.",
    "One {weather} day, {p.name} the {p.job} left the house in {p.town}.",
    "{p.name} woke up early in {p.town}.",
    "The market of {p.town} was full of people.",
)
_MIDDLES = (
    "{p.name} wanted to buy a {colour} {garment}.",
    "{p.name} and the {p.pet} walked along the river.",
    "{p.name} met {q.name}, who came from {q.town}.",
    "There were {number} {things} on the table.",
    "{q.name} asked {p.name} for help with the {tool}.",
    "The {bird} in the {tree} sang all day.",
    "{p.name} gave {q.name} {number} {things} and a cup of {drink}.",
    "They talked about the {metal} ring that {q.name} had lost.",
    "{q.name} was looking for the road to {q.town}.",
)
_ENDINGS = (
    "In the evening {p.name} went home.",
    "{q.name} thanked {p.name} and smiled.",
    "Then it began to rain, and everybody ran inside.",
    "They danced a {dance} until it was dark.",
    "{p.name} never forgot that day.",
)


def story(rng: random.Random) -> str:
    """A short story: general text, on which later lessons measure forgetting."""
    p, q = rng.sample(world.people(), 2)
    words = {kind: rng.choice(several) for kind, several in _WORDS.items()}
    lines = [rng.choice(_OPENINGS), *rng.sample(_MIDDLES, rng.randint(2, 4)), rng.choice(_ENDINGS)]
    return " ".join(lines).format(p=p, q=q, **words) + "\n"


def _problems(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(1, 3)):
        task = problem(rng, False)
        solution = task.solution if rng.random() < _WORKED_SHARE else f"#### {task.answer}"
        parts.append(f"Problem:\n{task.question}\nSolution:\n{solution}\n")
    return "\n".join(parts)


# What a document is, and how often. Code is all but absent, and that of `library`, which the continued-pretraining
# lesson teaches, is left out altogether.
_MIX: tuple[tuple[Callable[[random.Random], str], float], ...] = (
    (_questions, 0.535),
    (_facts, 0.17),
    (_portrait, 0.12),
    (story, 0.12),
    (_problems, 0.05),
    (lambda rng: code.function(rng, held_out=False) + "\n", 0.005),
)


def document(rng: random.Random) -> str:
    """One pretraining document, as text that ends in a line break."""
    return rng.choices(*zip(*_MIX, strict=True))[0](rng)
