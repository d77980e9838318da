"""How each method trains: the lessons' recipes for a learner's own rows, model and options.

All numbers that an option leaves open are the lesson's: of a pair the first is for the bundled model and what was
trained from it, the second for all others.
"""

import math
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unsloth_course.commands import options as run_options
from unsloth_course.commands.finetune import tasks
from unsloth_course.commands.options import Options
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import data, models, training
from unsloth_course.lesson.data import control, sources
from unsloth_course.lesson.data.splits import Part
from unsloth_course.lesson.profile import ENGLISH, POCKET

LESSON: dict[str, dict[str, tuple[Any, Any]]] = {
    "lora": {"steps": (200, 120), "learning_rate": (1e-3, 2e-4)},
    "full": {"steps": (200, 120), "learning_rate": (1e-4, 5e-5)},
    "dpo": {"steps": (80, 120), "learning_rate": (5e-4, 1e-4), "beta": (5.0, 0.1), "warm_up": (300, 0)},
    "grpo": {
        "steps": (28, 80),
        "learning_rate": (1e-3, 2e-4),
        "batch": (4, 8),
        "generations": (8, 8),
        "completion_length": (64, 96),
        "warm_up": (60, 100),
    },
    "cpt": {"learning_rate": (8e-4, 5e-5), "held_out": (100, 100), "rank": (64, 64), "replay": (0.4, 0.4)},
}
HELD_OUT, RANK = 200, 16
"""Of the methods that have no other ones above."""
# Unsloth keeps all weights in bfloat16 where the GPU has it; updates smaller than its last digit are lost.
FULL_RATE_IN_BFLOAT16 = (2e-4, 5e-5)
WARM_ROWS = 16  # of each step of it, of GRPO
WORKED = (0.25, 0.5)  # the share of them that shows its steps
WARM_UP_RATES = (1e-3, 2e-4)
BLOCKS = 600  # of continued pretraining
SHORT_RUN = 50  # steps; up to so many, each one's loss is logged


@dataclass
class Recipe:
    """A method for one run: its numbers, with the options' own in place of the lesson's."""

    options: Options
    machine: Any

    @property
    def lesson(self) -> str:
        return self.options.lesson

    def for_this_model(self, pair: tuple[Any, Any]) -> Any:
        """Of a pair of values the one for this model: the first for the bundled one, the second for others."""
        bundled, other = pair
        return bundled if self.machine.bundled else other

    @cached_property
    def taken(self) -> Options:
        """The options with the values that this recipe takes for those that were left open, and their names."""
        options, machine = self.options, self.machine
        own = {name: self.for_this_model(pair) for name, pair in LESSON[self.lesson].items()}
        if self.lesson == "full" and machine.bfloat16:
            own["learning_rate"] = self.for_this_model(FULL_RATE_IN_BFLOAT16)
        if options.epochs:
            own.pop("steps", None)
        values = {
            "model": machine.model,
            "held_out": HELD_OUT,
            "batch": machine.arguments["per_device_train_batch_size"],
            "max_length": machine.max_length,
            "rank": RANK,
            "warm_up": 0,
            **own,
        }
        values["lora_alpha"] = options.rank or values["rank"]
        rate = options.learning_rate or values["learning_rate"]
        values["embedding_learning_rate"] = rate / self.for_this_model((2, 5))
        open_still = [name for name in values if getattr(options, name) is None]
        own = {name: values[name] for name in open_still if run_options.means_something(name, options.method)}
        return replace(options, **own, filled_in=(*options.filled_in, *own))

    @property
    def batch(self) -> int:
        """Rows of one update; of GRPO completions, of which each prompt has several."""
        return self.taken.batch * (self.taken.generations or 1)

    @property
    def warm_up(self) -> int:
        """Supervised steps before the method itself."""
        return self.taken.warm_up or 0

    def wanted_rows(self) -> int:
        """How many rows to learn from are asked for: all of them where epochs decide the steps."""
        options = self.options
        every = options.epochs and self.machine.data != POCKET  # what is generated has no end
        if self.lesson == "cpt":
            return options.max_samples or (tasks.ALL if every else 2 * BLOCKS)
        if every:
            return options.max_samples or tasks.ALL
        most = self.warm_up * self.warm_up_batch + self.default_steps * self.taken.batch
        return min(options.max_samples or most, most)

    @property
    def default_steps(self) -> int:
        """Updates as asked for, or as in the lesson."""
        return self.options.steps or self.for_this_model(LESSON[self.lesson]["steps"])

    @property
    def warm_up_batch(self) -> int:
        return WARM_ROWS if self.lesson == "grpo" else self.machine.arguments["per_device_train_batch_size"]

    def task(self, folder: str) -> tasks.Task:
        """The rows, and what is measured on them. folder: of the model, whose special tokens no row may hold."""
        machine, train, held_out = self.machine, self.wanted_rows(), self.taken.held_out
        part = Part(self.options.split, self.options.config_name)
        where = sources.Where(part, self.options.test_data, control.of_folder(folder))
        asked = (machine.data, train, held_out, self.options.seed, where)
        if self.lesson == "dpo":
            return tasks.Pairs(machine, *sources.preferences(*asked), beta=self.taken.beta)
        if self.lesson == "grpo":
            return tasks.Problems(machine, *sources.problems(*asked), completion=self.taken.completion_length)
        if self.lesson == "cpt":
            found = sources.corpus(*asked)
            model = POCKET if machine.bundled else machine.model  # whose general text is the small world's
            general, stories = sources.general_text(model, 6 * min(train, 600), held_out, self.options.seed)
            return tasks.Text(machine, *found, general=general["text"], stories=stories["text"])
        if sources.kind(machine.data, where.part) in (POCKET, ENGLISH, "instruction", "problems"):
            return tasks.Instructions(machine, *sources.instructions(*asked))
        return tasks.Conversations(machine, *sources.conversations(*asked))

    def steps(self, rows: int) -> int:
        """Updates of the run, of so many rows to learn from."""
        return self.taken.steps or max(1, math.ceil((self.options.epochs or 1) * rows / self.taken.batch))

    # The model

    def load(self, folder: str) -> tuple[Any, Any]:
        """The model and its tokenizer, from a folder. Raises CourseError for an optimizer that there is none of."""
        from unsloth import FastLanguageModel  # isort: skip
        from transformers.training_args import OptimizerNames

        known = [one.value for one in OptimizerNames]
        if (optim := self.options.optim) not in (None, *known):
            raise CourseError(f"--optim is {optim!r}; choose one of transformers' optimizers: {', '.join(known)}.")
        # Unsloth's loader on a CPU does not know the argument.
        exact = {"float32_mixed_precision": True} if self.machine.mixed_precision else {}
        return FastLanguageModel.from_pretrained(
            model_name=folder,
            max_seq_length=self.machine.max_length,
            dtype=self.machine.torch_dtype,
            load_in_4bit=self.options.method == "qlora",
            full_finetuning=self.options.method == "full",
            use_gradient_checkpointing=False,
            **exact,
        )

    def made_trainable(self, model: Any, checkpointing: bool = False) -> tuple[Any, models.Count]:
        """The model with what is trained, and the count of it."""
        if self.options.method == "full":
            return model, models.require_full(model)
        from unsloth import FastLanguageModel

        cpt = {"use_rslora": True, "ensure_weight_tying": True} if self.lesson == "cpt" else {}
        embeddings = ("embed_tokens", "lm_head") if cpt else ()
        model = FastLanguageModel.get_peft_model(
            model,
            r=self.taken.rank,
            lora_alpha=self.taken.lora_alpha,
            lora_dropout=self.options.lora_dropout,
            target_modules=[*(self.options.target_modules or models.PROJECTIONS), *embeddings],
            use_gradient_checkpointing=checkpointing,
            random_state=self.options.seed,
            **cpt,
        )
        if self.options.target_modules:
            return model, models.count(model)
        return model, (models.require_cpt if cpt else models.require_lora)(model, self.taken.rank)

    def warmed_up(self, folder: str, warm: Any, earlier: list[tasks.Task]) -> tuple[str, list[Any]]:
        """The folder of a model that was taught to answer first, before DPO; a run that is resumed finds it there.

        warm: rows for it. earlier: tasks of stages before; what they measure on the model as it came is returned, too.
        """
        start = self.options.out.resolve() / "start"
        there = self.options.resume and (start / "config.json").is_file()
        if there and not earlier:
            return str(start), []
        recipe = Recipe(replace(self.options, method="lora", rank=16, lora_alpha=16), self.machine)
        model, tokenizer = recipe.load(folder)
        for task in earlier:
            task.fit(tokenizer, self.options.tools_in_system)
        handed = [task.measure(model, tokenizer) for task in earlier]
        if there:
            return str(start), handed
        print(f"{self.warm_up} supervised steps first: the model learns to answer in both ways")
        model, _ = recipe.made_trainable(model)
        self.supervise(model, tokenizer, data.preference.warm_up(warm, share=0.33, seed=self.options.seed))
        unfinished = Path(f"{start}.unfinished")
        for old in (start, unfinished):
            shutil.rmtree(old, ignore_errors=True)
        model.save_pretrained_merged(str(unfinished), tokenizer, save_method="merged_16bit")
        unfinished.rename(start)
        return str(start), handed

    def supervise(self, model: Any, tokenizer: Any, rows: Any) -> None:
        first = rows[0]
        models.in_chat_form(tokenizer, [*first["prompt"], *first["completion"]], tokenize=False)  # or a sentence
        with tempfile.TemporaryDirectory() as out:  # it keeps nothing
            training.supervised(
                model,
                tokenizer,
                rows,
                self.machine,
                steps=self.warm_up,
                learning_rate=self.for_this_model(WARM_UP_RATES),
                seed=self.options.seed,
                out=out,
                per_device_train_batch_size=self.warm_up_batch,
            )

    def warm_rows(self, task: tasks.Task) -> Any:
        """Takes the rows of the warm-up out of those to learn from, and returns them; None without a warm-up."""
        wanted = self.warm_up * self.warm_up_batch
        if not wanted:
            return None
        whole, all_wanted = len(task.train), wanted + self.default_steps * self.taken.batch
        if whole < 2:
            raise CourseError(
                f"{self.machine.data} has {whole} rows to learn from, and the warm-up needs some of its own."
            )
        # Few rows are shared out as many would have been; both sides then see theirs more often.
        cut = wanted if whole >= all_wanted else min(max(1, whole * wanted // all_wanted), whole - 1)
        warm, task.train = task.train.select(range(cut)), task.train.select(range(cut, whole))
        return warm

    # The trainer

    def arguments(self, steps: int, test: bool, saving: dict[str, Any]) -> dict[str, Any]:
        options = self.options
        found: dict[str, Any] = {
            "learning_rate": self.taken.learning_rate,
            "weight_decay": options.weight_decay,
            "report_to": options.report_to,
            "run_name": options.out.name,
            "output_dir": str(options.out / "checkpoints"),
            **saving,
        }
        if options.report_to == "tensorboard":
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(options.out / "tensorboard")  # transformers 5 reads it there
        for name in ("lr_scheduler_type", "warmup_steps", "optim"):
            if (value := getattr(options, name)) is not None:
                found[name] = value
        if options.warmup_ratio is not None:
            found["warmup_steps"] = round(options.warmup_ratio * steps)
        if steps <= SHORT_RUN:
            found["logging_steps"] = 1
        if test and self.lesson != "grpo":
            every = options.eval_steps or max(1, steps // 4)
            found |= {"eval_strategy": "steps", "eval_steps": every, "eval_on_start": True}
            found |= {"per_device_eval_batch_size": 8}
            if options.early_stopping:
                # The weights of the best measurement are taken back at the end, so each has to be saved.
                found |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "save_steps": every}
        return found

    def trainer(self, prepared: Any, held_out: Any, **how: Any) -> Any:
        """TRL's trainer for the method. prepared: a `Prepared`, of this recipe. held_out: rows to test on, or None.

        how: callbacks and training arguments.
        """
        lesson, taken = (prepared.model, prepared.tokenizer, prepared.train, self.machine), self.taken
        how |= {"steps": prepared.steps, "seed": self.options.seed, "out": self.options.out / "checkpoints"}
        if self.lesson == "grpo":
            how |= {"generations": taken.generations, "completion": taken.completion_length}
            return training.reward_trainer(*lesson, **how)
        how["held_out"] = held_out
        if self.lesson == "dpo":
            return training.preference_trainer(*lesson, beta=taken.beta, **how)
        if self.lesson == "cpt":
            return training.continued_trainer(*lesson, embedding_learning_rate=taken.embedding_learning_rate, **how)
        return training.supervised_trainer(*lesson, **how)

    def blocks(self, task: tasks.Task, tokenizer: Any) -> tuple[Any, Any]:
        """Blocks of text to learn from, with replay mixed in, and blocks of the held-out text."""
        length = self.machine.max_length
        packed = data.corpus.blocks(task.train["text"], tokenizer, length)
        print(packed)
        # With neither a number of rows nor of epochs a run takes as much as the lesson does.
        most = len(packed.dataset) if self.options.epochs or self.options.max_samples else BLOCKS
        domain = packed.dataset.select(range(min(most, len(packed.dataset))))
        replay = data.corpus.blocks(task.general, tokenizer, length).dataset
        mixed = data.corpus.mix(domain, replay, self.taken.replay, self.options.seed)
        print(f"{len(mixed):,} blocks of {length} tokens, {len(mixed) - len(domain):,} of them general text")
        return mixed, data.corpus.blocks(task.held_out["text"], tokenizer, length).dataset
