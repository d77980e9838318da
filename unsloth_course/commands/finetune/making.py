"""The task of a run, by its method: rows of the data asked for, with what is measured on them."""

from typing import TYPE_CHECKING

from unsloth_course.lesson.data import sources
from unsloth_course.lesson.profile import ENGLISH, POCKET

if TYPE_CHECKING:
    from unsloth_course.lesson.profile import Profile
from unsloth_course.commands.finetune.tasks import Conversations, Instructions, Pairs, Problems, Task, Text


def supervised(
    machine: "Profile", train: int, held_out: int, seed: int, where: sources.Where = sources.AS_IT_IS
) -> Task:
    """The task of full, LoRA and QLoRA."""
    if sources.kind(machine.data, where.part) in (POCKET, ENGLISH, "instruction", "problems"):
        return Instructions(machine, *sources.instructions(machine.data, train, held_out, seed, where))
    return Conversations(machine, *sources.conversations(machine.data, train, held_out, seed, where))


def preferences(
    machine: "Profile", train: int, held_out: int, seed: int, where: sources.Where = sources.AS_IT_IS, beta: float = 0.1
) -> Task:
    """The task of DPO. beta: that of the training, for the margin."""
    return Pairs(machine, *sources.preferences(machine.data, train, held_out, seed, where), beta=beta)


def problems(
    machine: "Profile",
    train: int,
    held_out: int,
    seed: int,
    where: sources.Where = sources.AS_IT_IS,
    completion: int = 64,
) -> Task:
    """The task of GRPO. completion: tokens of the longest answer."""
    return Problems(machine, *sources.problems(machine.data, train, held_out, seed, where), completion=completion)


def text(machine: "Profile", train: int, held_out: int, seed: int, where: sources.Where = sources.AS_IT_IS) -> Task:
    """The task of continued pretraining."""
    found = sources.corpus(machine.data, train, held_out, seed, where)
    model = POCKET if machine.bundled else machine.model  # whose general text is the small world's
    general, stories = sources.general_text(model, 6 * min(train, 600), held_out, seed)
    return Text(machine, *found, general=general["text"], stories=stories["text"])


MAKE = {
    "full": supervised,
    "lora": supervised,
    "qlora": supervised,
    "dpo": preferences,
    "grpo": problems,
    "cpt": text,
}
"""By method: what makes its task."""
