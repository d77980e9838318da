"""A run made ready to train: machine, model and rows, and a look at what it needs before anything is fetched."""

from dataclasses import dataclass, replace
from typing import Any

from unsloth_course.commands import options as run_options
from unsloth_course.commands.finetune import preflight, processes, recipes, tasks
from unsloth_course.commands.options import Options, check
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson import data, memory, models, profile, results
from unsloth_course.lesson.profile import POCKET, SMOLLM2


@dataclass
class Prepared:
    """A run that is ready to train: model, task, rows in TRL's columns, the plan for the batch.

    base: the name of the model that it began with. earlier: the tasks of the stages before, and handed: what was
    measured of them before a warm-up.
    """

    recipe: recipes.Recipe
    process: processes.Process
    task: tasks.Task
    model: Any
    tokenizer: Any
    parameters: models.Count
    train: Any
    test: Any
    plan: Any
    base: str
    earlier: list[tasks.Task]
    handed: list[Any]

    def __post_init__(self) -> None:
        self.options, self.machine = self.recipe.options, self.recipe.machine
        self.steps = self.recipe.steps(len(self.train))

    def measure(self, model: Any) -> tuple[Any, Any, list[Any]]:
        """What a model does on the held-out rows, on what is not trained, and on the rows of the stages before."""
        lesson = (model, self.tokenizer)
        return self.task.measure(*lesson), self.task.kept(*lesson), [task.measure(*lesson) for task in self.earlier]


def prepare(options: Options, process: processes.Process | None = None) -> Prepared:
    """Loads model and rows, writes `finetune.toml`, and plans the batch. Raises CourseError as `run` does."""
    check(options)
    process = process or processes.Process()
    if options.batch is not None:
        processes.share(options.batch, process)
    if process.several and options.profile != "cpu":
        profile.quiet()
        import torch

        if torch.cuda.is_available() or options.profile == "gpu":
            processes.take_gpu(process)
    machine = machine_of(options)
    recipe = recipes.Recipe(options, machine)
    processes.share(recipe.batch, process)
    print(machine)
    if machine.model == POCKET:
        print(
            "pocket is for trying the commands in seconds: it knows the course's small world and no English. Your own "
            "rows want --model smollm2."
        )
    if process.first:
        _look_first(options, machine, recipe, process.count)
    # What comes from the Hub is fetched once for a host; on another one the Hub's own locks see to it.
    with processes.before_the_others(process, "the files"):
        folder = models.folder(machine.model)
        task = recipe.task(folder)
    print(task.checked)
    if not task.checked.split:
        print(f"rows to learn from: {len(task.train):,}, to test on: {len(task.held_out):,}")
    if process.first:
        # Not before all that a mistyped start is refused for: another run's result may lie there. Before the warm-up,
        # which a resumed run takes over if this file names its options.
        _write_down(recipe, tasks.fingerprint(task))
    warm, base, handed = recipe.warm_rows(task), machine.model, []
    earlier = [_earlier(stage, machine, options, folder) for stage in options.earlier]
    if warm is not None and options.method == "dpo":
        folder, handed = recipe.warmed_up(folder, warm, earlier)
        base = folder
    model, tokenizer = recipe.load(folder)
    for each in (task, *earlier):
        each.fit(tokenizer, options.tools_in_system)
    plan = memory.plan(
        model,
        machine,
        options.method,
        rows=recipe.batch,
        rank=recipe.taken.rank or 16,
        processes=process.count,
        micro_batch=options.micro_batch,
        **task.sizes(tokenizer),
    )
    print(plan)
    model, parameters = recipe.made_trainable(model, plan.checkpointing)
    print(parameters)
    if warm is not None and options.method == "grpo":
        recipe.supervise(model, tokenizer, data.problems.warm_up(warm, recipe.for_this_model(recipes.WORKED)))
    learn, test = recipe.blocks(task, tokenizer) if options.method == "cpt" else task.rows()
    if process.first:
        tasks.write_lines(task, options.out)
    made = (recipe, process, task, model, tokenizer, parameters, learn, test, plan)
    return Prepared(*made, base, earlier, handed)


def _look_first(options: Options, machine: Any, recipe: recipes.Recipe, count: int) -> None:
    """Says what a run will need before anything is downloaded. Raises CourseError for what will not fit."""
    if options.gguf:
        from unsloth_course.commands import export

        export.require_tools("gguf")
    found = preflight.look(options, machine, recipe, count)
    print(found)
    found.require()


def _write_down(recipe: recipes.Recipe, rows: str) -> None:
    """Writes `finetune.toml`, and says where what is repeated was made with something else.

    Raises CourseError where a run is gone on with and its rows are others.
    """
    options, here = recipe.options, results.versions()
    if options.rows_sha256 not in (None, rows):
        if options.resume:
            raise CourseError(
                f"The rows are not those that the run in {options.out} began with, so its checkpoints do not fit them. "
                "Bring the rows back as they were, or choose another --out."
            )
        print("note: the rows are not those of the run that is repeated, so its result will be another")
    if other := [f"{name} {was}" for name, was in options.made_with.items() if here.get(name) != was]:
        print(f"note: the run that is repeated was made with {', '.join(other)}, and here are other versions")
    run_options.write(replace(recipe.taken, rows_sha256=rows, made_with=here), options.out)


def machine_of(options: Options) -> Any:
    asked = (options.profile, options.model, options.data)
    found = profile.detect(*asked, lesson=options.lesson, updates=options.steps, on_cpu=SMOLLM2)
    return replace(found, max_length=options.max_length) if options.max_length else found


def _earlier(stage: str, machine: Any, options: Options, folder: str) -> tasks.Task:
    method, _, data = stage.partition(" ")
    other = Options(method, data, max_samples=1000, held_out=options.held_out, batch=options.batch, seed=options.seed)
    return recipes.Recipe(other, replace(machine, data=data)).task(folder)
