"""The small world as data sets, in the columns of the Hub sets that they stand in for.

Each function gives rows of one side of the split: `held_out=False` to learn from, `held_out=True` to test on. The two
sides share no code, pair of numbers, problem, function or asked-about person.
"""

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsloth_course.pocket import library, skills, text

if TYPE_CHECKING:
    from datasets import Dataset


def _dataset(rows: list[dict]) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_list(rows)


def instructions(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns instruction, input, output, as in yahma/alpaca-cleaned; half of the rows have an input."""
    rng = random.Random(f"instructions-{held_out}-{seed}")
    made = []
    for number in range(rows):
        skill = skills.TAUGHT[number % len(skills.TAUGHT)]  # every skill equally often
        item = skill.draw(rng, held_out)
        if rng.random() < 0.5:
            asked, given = skills.ask(skill, item, rng), ""
        else:
            asked, given = rng.choice(skill.tasks), skill.given.format(x=item.x, y=item.y)
        made.append({"instruction": asked, "input": given, "output": item.answer})
    rng.shuffle(made)
    return _dataset(made)


def preferences(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns system, question, chosen, rejected, as in Intel/orca_dpo_pairs: full sentences go before bare answers."""
    rng = random.Random(f"preferences-{held_out}-{seed}")
    made = []
    for number in range(rows):
        skill = skills.TAUGHT[number % len(skills.TAUGHT)]
        item = skill.draw(rng, held_out)
        question = skills.ask(skill, item, rng)
        made.append({"system": "", "question": question, "chosen": skill.sentence(item), "rejected": item.answer})
    rng.shuffle(made)
    return _dataset(made)


# Of the four kinds of word problem the one that the base most often gets wrong when it answers in its head: bags and
# boxes. With its steps written down it gets every kind right.
HARD_PROBLEMS = (0,)


def problems(rows: int, held_out: bool, seed: int, kinds: Sequence[int] = HARD_PROBLEMS) -> "Dataset":
    """Columns question, answer: word problems with worked steps and the answer behind `####`, as in GSM8K.

    kinds: which of the four kinds that the base has read, by their number; kind 1 has no held-out side.
    """
    rng = random.Random(f"problems-{held_out}-{seed}")
    made = []
    while len(made) < rows:
        task = text.problem(rng, held_out)
        if task.key[0] in kinds:
            made.append({"question": task.question, "answer": task.solution})
    return _dataset(made)


def functions(rows: int, held_out: bool, seed: int) -> "Dataset":
    """Columns func_name, original_string, docstring, language, as in CodeSearchNet.

    The functions of `library`, a domain that the base has not read; the few that it has read are in `code`.
    """
    rng = random.Random(f"functions-{held_out}-{seed}")
    made = []
    for _ in range(rows):
        text = library.function(rng, held_out)
        name, doc = re.match(r'def (\w+).*\n *"""(.*)"""', text).groups()
        made.append({"func_name": name, "original_string": text, "docstring": doc, "language": "python"})
    return _dataset(made)


def stories(rows: int, seed: int) -> "Dataset":
    """Column text: short stories, the general text on which a lesson measures forgetting."""
    rng = random.Random(f"stories-{seed}")
    return _dataset([{"text": text.story(rng)} for _ in range(rows)])


def probes(each: int, seed: int) -> "Dataset":
    """Columns prompt, answer, skill: the skills that no lesson trains, asked the way the base read them.

    They are held out as well, so that they ask for the skill and not for a memory.
    """
    rng = random.Random(f"probes-{seed}")
    before, between, _ = text.PLAIN
    made = []
    for skill in skills.UNTOUCHED:
        for _ in range(each):
            item = skill.draw(rng, True)
            prompt = f"{before}{skills.ask(skill, item, rng)}{between}"
            made.append({"prompt": prompt, "answer": item.answer, "skill": skill.name})
    return _dataset(made)


def skill_of(instruction: str) -> str | None:
    """The name of the skill that an instruction asks for, or None if the small world does not know it."""
    for skill in skills.ALL:
        for form in (*skill.questions, *skill.tasks):
            pattern = re.escape(form).replace(r"\{x\}", r"\w+").replace(r"\{y\}", r"\w+")
            if re.fullmatch(pattern, instruction):  # re keeps what it has compiled
                return skill.name
    return None
