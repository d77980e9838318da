"""The lessons at the true size, without network: a stand-in for SmolLM2-135M-Instruct, served under its name.

    python benchmarks/true_size.py --out DIR [--lessons lora,dpo] [--tokens 70000000] [--memory 15] [--brief]

On a machine with a CUDA GPU. (1) Pretrains a model of exactly that shape, 134,515,008 parameters, on documents of the
pocket model's small world, and teaches it to chat. (2) Serves it, and generated sets, under the names that the lessons
ask the Hub for, through the small Hub of the tests. (3) Runs the lessons as they are, in the gpu profile with an empty
cache, each in a process of its own, and collects what they wrote in DIR. `--memory` caps the GPU, in GiB, and hides
bfloat16, to come as near to a T4 as another card can; `--brief` takes the
knobs that CI takes, with at least 10 steps. `--lessons ""` stops after the first part. A model that lies in
DIR already is taken. It is not shipped: it is the size that is true, and not what it knows.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SHAPE = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
PARAMETERS = 134_515_008
PROBLEMS = 0.25  # of the share of word problems to the others': it sees a sixth of the pocket model's text
CHAT = {"steps": 200, "learning_rate": 1e-4, "seed": 3407}
T4 = """
import sys
import torch
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction({gib} * 1024**3 / total)
torch.cuda.is_bf16_supported = lambda *_, **__: False
real = torch.cuda.get_device_capability
def capability(*which):
    caller = sys._getframe(1).f_globals["__name__"].split(".")[0]
    return real(*which) if caller in ("torch", "triton") else (7, 5)  # these two compile for the card that is there
# Or Unsloth puts its own memory of the answer in between, is the caller for all then, and no kernel compiles.
capability._unsloth_per_device_cache = True
torch.cuda.get_device_capability = capability
"""


def pretrain(folder: Path, tokens: int) -> dict:
    """The stand-in before it can chat."""
    from unsloth_course.pocket import train

    facts = train.pretrain(
        folder,
        tokens,
        batch=128,
        learning_rate=1e-3,
        score_each=40,
        config=SHAPE,
        prepare=_compile_layers,
        problems=PROBLEMS,
    )
    assert facts["parameters"] == PARAMETERS, facts["parameters"]
    return facts


def _compile_layers(model) -> None:
    """Half the time of a step is saved; where it cannot be, training goes on as it is."""
    import torch

    torch._dynamo.config.suppress_errors = True
    for layer in model.model.layers:
        layer.compile()


def chat_model(out: Path, tokens: int) -> Path:
    """The folder of the stand-in that can chat; pretrained first, where it does not lie in `out` already."""
    base, instruct = out / "base", out / "instruct"
    if not (instruct / "model.safetensors").exists():
        facts = pretrain(base, tokens)
        print(f"pretrained: loss {facts['final_loss']:.3f}, {facts['seconds']:.0f} s; {facts['held_out']}", flush=True)
        # In a process of its own, since Unsloth must be imported first of all.
        subprocess.run([sys.executable, __file__, "--out", str(out), "--chat", str(base), str(instruct)], check=True)
    return instruct


def teach_chat(base: Path, folder: Path) -> None:
    """Full fine-tuning on questions answered in both ways, so that the DPO lesson has something to prefer."""
    from unsloth_course import data, profile, training

    machine = profile.detect("gpu", str(base), profile.POCKET)
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=str(base), max_seq_length=machine.max_length, load_in_4bit=False, full_finetuning=True
    )
    pairs, _, _ = data.sources.preferences(profile.POCKET, 16 * CHAT["steps"], held_out=1, seed=1)
    rows = data.preference.warm_up(pairs, share=0.33, seed=1)
    training.supervised(model, tokenizer, rows, machine, **CHAT, out=folder, per_device_train_batch_size=16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sets(folder: Path, stories: int = 3000) -> dict[str, Path]:
    """Generated rows in the files and columns of the sets that the lessons fetch, by their Hub names.

    stories: how many of the answers are long ones.
    """
    import pyarrow
    import pyarrow.parquet

    from unsloth_course.pocket import datasets
    from unsloth_course.profile import HUB_DATA

    found = {name: folder / lesson for lesson, name in HUB_DATA.items() if lesson in ("lora", "dpo", "cpt")}
    answers, pairs, functions = found.values()
    for place in (functions / "python", answers, pairs):
        place.mkdir(parents=True, exist_ok=True)
    rows = datasets.instructions(12_000, held_out=False, seed=1).to_list()
    told = [" ".join(datasets.stories(3, seed=number)["text"]) for number in range(stories)]
    rows += [{"instruction": f"Tell me story {n}.", "input": "", "output": text} for n, text in enumerate(told)]
    (answers / "alpaca_data_cleaned.json").write_text(json.dumps(rows))
    rows = datasets.preferences(12_000, held_out=False, seed=2).to_list()
    (pairs / "orca_rlhf.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = pyarrow.Table.from_pylist(datasets.functions(12_000, held_out=False, seed=3).to_list())
    pyarrow.parquet.write_table(table, functions / "python" / "validation-00000-of-00001.parquet")
    return found


def shortened(folder: Path) -> Path:
    """Copies of the lessons in `folder`, with the knobs that nbmake sets in CI, and at least 10 steps."""
    import nbformat
    from shortened import shorten

    from unsloth_course import runner

    folder.mkdir(parents=True, exist_ok=True)
    for path in runner.NOTEBOOKS.glob("colab*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            mock = cell.metadata.get("nbmake", {}).get("mock", {})
            if "STEPS" in mock:
                mock["STEPS"] = max(10, mock["STEPS"])
        nbformat.write(shorten(notebook), folder / path.name)
    return folder


def run(
    lesson: str, environment: dict[str, str], out: Path, gib: float | None, notebooks: Path | None = None
) -> subprocess.Popen:
    """The lesson in a process of its own. notebooks: the folder of copies, in place of the repository's."""
    if gib:
        site = out / "t4"
        site.mkdir(exist_ok=True)
        # Python runs it at its start, in the kernel too; usercustomize would not be run in a virtual environment.
        (site / "sitecustomize.py").write_text(T4.format(gib=gib))
        environment = environment | {"PYTHONPATH": f"{site}{os.pathsep}{environment.get('PYTHONPATH', '')}"}
    from shortened import COMMAND

    program = ["-c", COMMAND, str(notebooks.resolve())] if notebooks else ["-m", "unsloth_course"]
    command = [sys.executable, *program, "run", lesson, "--profile", "gpu", "--out", str(out / lesson)]
    with (out / f"{lesson}.log").open("w") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def said(lesson: str, out: Path, status: int, seconds: float) -> str:
    """One line on a finished lesson."""
    file = out / lesson / f"{lesson}.json"
    if not file.exists():
        return f"{lesson}: status {status}, no results: {(out / f'{lesson}.log').read_text()[-600:]}"
    found = json.loads(file.read_text())
    training, score = found["training"], found["evaluation"]
    peak, predicted = training["peak_memory_bytes"] / 2**30, (training["predicted_memory_bytes"] or 0) / 2**30
    return (
        f"{lesson}: status {status}, {found['receipt']['verdict']}, {score['metric']} {score['before']:.4g} -> "
        f"{score['after']:.4g}, {found['parameters']['trainable']:,} trained, peak {peak:.2f} GiB (predicted "
        f"{predicted:.2f}), {training['steps']} steps in {training['seconds']:.0f} s, {seconds:.0f} s in all"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lessons", default="lora,full,cpt,dpo,grpo")
    parser.add_argument("--tokens", type=int, default=70_000_000, help="of the pretraining")
    parser.add_argument("--memory", type=float, help="cap of the GPU in GiB; hides bfloat16")
    parser.add_argument("--brief", action="store_true", help="with the shortened knobs of CI")
    parser.add_argument("--chat", nargs=2, type=Path, metavar=("BASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chat:
        teach_chat(*options.chat)
        return 0
    from hub_server import HubServer

    from unsloth_course.profile import HUB_MODEL

    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    instruct = chat_model(out, options.tokens)
    if not options.lessons:
        return 0
    failed = 0
    with HubServer() as server:
        server.add_model(HUB_MODEL, instruct)
        for name, folder in sets(out / "sets").items():
            server.add_dataset(name, folder)
        environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
        environment |= server.environment(out / "cache")
        started = time.monotonic()
        notebooks = shortened(out / "notebooks") if options.brief else None
        lessons = options.lessons.split(",")
        running = {lesson: run(lesson, environment, out, options.memory, notebooks) for lesson in lessons}
        for lesson, process in running.items():
            status = process.wait()
            failed += status != 0
            print(said(lesson, out, status, time.monotonic() - started), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
