"""`share`, against the small local Hub: what goes, what never goes, and what breaks off in between."""

import filecmp
import io
import json
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ENVIRONMENT
from core.test_hub import write_model
from hub_upload import TOKEN
from huggingface_hub import HfApi, constants
from safetensors.numpy import save_file

from unsloth_course import models
from unsloth_course.commands import share
from unsloth_course.core import hub
from unsloth_course.core.errors import CourseError

NAME = "learner/mine"
SECRET = "hf_" + "s" * 34  # no token of anybody
CARD = "---\nlibrary_name: peft\n---\n# A LoRA adapter, trained on my rows\n"
STAYS = ("rows.jsonl", "held-out.jsonl", "finetune.toml", "pytorch_model.bin", "training_args.bin", ".env", "notes.txt")
STAYS += ("checkpoint-5/optimizer.safetensors", "results/lora.json", "results.json", "trainer_state.json")


class Terminal(io.StringIO):
    """Somebody who types this."""

    def isatty(self):
        return True


@pytest.fixture
def here(hub_here, tmp_path, monkeypatch):
    """A Hub that knows who is asking; retries do not wait."""
    import huggingface_hub.utils._http as http

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda seconds: None))
    return hub_here


def write_adapter(folder, base="somebody/model", megabytes=0):
    folder.mkdir(parents=True)
    draw = np.random.default_rng(megabytes)
    for file, rows in (("adapter_model.safetensors", 4), ("more.safetensors", max(4, megabytes * 1024))):
        save_file({"lora_B": draw.normal(size=(rows, 256)).astype(np.float32)}, folder / file)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "base_model_name_or_path": base}))
    (folder / "README.md").write_text(CARD)
    return folder


def visible(running, name=NAME):
    """What a visitor of the repository finds: its files by name; nothing where there is none."""
    repository = running.repositories.get(("model", name))
    return {file: path.read_bytes() for file, path in repository.files().items()} if repository else {}


def puts(running):
    """The status of every large file that was sent; 0 where it was cut."""
    return [request.status for request in running.requests if request.method == "PUT"]


@pytest.mark.parametrize("public", [False, True])
def test_a_shared_model_comes_back_byte_for_byte_and_is_private_unless_told(here, command, public):
    source = models.folder("pocket")
    call = "share", source, "--to", NAME, "--yes", *["--public"] * public
    status, out, err = command(*call)
    assert (status, err) == (0, "") and f"{here.endpoint}/{NAME}" in out and "stays here: scores.json" in out
    assert HfApi().model_info(NAME).private is not public
    fetched = hub.fetch_model(NAME)
    assert filecmp.cmpfiles(source, fetched, visible(here), shallow=False)[1:] == ([], []) and len(visible(here)) == 6
    here.requests.clear()
    assert command(*call)[0] == 0 and not [request for request in here.requests if "/commit/" in request.path]


def test_only_what_others_need_goes_with_the_card_of_the_run(here, command, tmp_path):
    run = tmp_path / "run"
    made = {"adapter": write_adapter(run / "adapter"), "model": write_model(run / "export" / "merged")}
    made["gguf"] = run / "gguf"
    made["gguf"].mkdir()
    for name in ("mine-q4_k_m.gguf", "Modelfile"):
        (made["gguf"] / name).write_bytes(b"GGUF")
    for kind, folder in made.items():
        wanted = {path.name for path in folder.iterdir()} | {"README.md"}
        for name in STAYS:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("my own words")
        source = run if kind == "adapter" else folder  # of a run its adapter goes
        assert command("share", str(source), "--to", f"learner/{kind}", "--yes")[0] == 0
        assert set(visible(here, f"learner/{kind}")) == wanted
    card = visible(here, "learner/model")["README.md"].decode()
    assert "library_name: transformers" in card and "# A model, trained on my rows" in card
    said = b"".join(here.bodies)
    assert b"README.md" in said and not any(name.encode() in said for name in STAYS)


@pytest.mark.parametrize("stdin", [Terminal("n\n"), Terminal("\n"), Terminal(""), io.StringIO("y\n"), Terminal("y\n")])
def test_nothing_leaves_the_machine_before_yes(here, command, tmp_path, monkeypatch, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    yes = stdin.isatty() and stdin.getvalue() == "y\n"
    status, out, err = command("share", str(write_adapter(tmp_path / "adapter")), "--to", NAME)
    assert "adapter_model.safetensors" in out and f"4 files to {NAME}, private" in out + err
    assert ("--yes" in err) is not stdin.isatty()
    assert (status, len(visible(here))) == (0, 4) if yes else (status, here.requests) == (1, [])


def test_what_everybody_sees_is_written_to_only_with_public(here, command, tmp_path):
    (tmp_path / "theirs").mkdir()
    here.add_model(NAME, tmp_path / "theirs")
    call = "share", str(write_adapter(tmp_path / "adapter")), "--to", NAME, "--yes"
    status, _, err = command(*call)
    assert status == 1 and "everybody can see it" in err and "--public" in err
    assert b"".join(here.bodies) == b"" and visible(here) == {}
    assert command(*call, "--public")[0] == 0 and len(visible(here)) == 4


def test_without_a_login_the_command_for_it_is_said(here, command, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, _, err = command("share", str(write_adapter(tmp_path / "adapter")), "--to", NAME, "--yes")
    assert status == 1 and "`hf auth login`" in err and here.requests == []


@pytest.mark.parametrize("base", ["pocket", "smollm2", "folder", "/gone/since", None])
def test_an_adapter_without_a_base_that_others_can_fetch_is_refused(tmp_path, base):
    base = str(write_model(tmp_path / "base")) if base == "folder" else base
    with pytest.raises(CourseError, match=r"others cannot fetch.*export .*adapter --to merged"):
        share.gather(write_adapter(tmp_path / "adapter", base))


@pytest.mark.parametrize("file", ["README.md", "adapter_config.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_secret_is_refused_with_file_and_line_and_not_said_again(here, command, tmp_path, file):
    folder = write_adapter(tmp_path / "adapter")
    (folder / file).write_text(json.dumps({"base_model_name_or_path": "somebody/model", "token": SECRET}, indent=1))
    status, out, err = command("share", str(folder), "--to", NAME, "--yes")
    assert status == 1 and f"{file}, line 3 " in err and SECRET not in out + err and here.requests == []


def test_what_is_no_model_or_cut_off_is_a_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CourseError, match="holds no adapter, no model and no GGUF file"):
            share.gather(folder)
    for folder in (write_adapter(tmp_path / "adapter"), write_model(tmp_path / "model")):
        file = next(folder.glob("*model.safetensors"))
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(CourseError, match=f"{file.name} is cut off or damaged"):
            share.gather(folder)


FAULTS = {
    "refused": "does not let you write to learner/mine",
    "another's token": "your token has no right to write",
    "no name": '"my model" is no name for a repository: the Hub wants OWNER/NAME',
    "bad card": 'head of README.md: "base_model" with value "/home/me" is not valid. Change it',
    "down": "broke off: the Hub at http.* cannot be reached",
    "out of order": r"broke off: the Hub at http.* is out of order \(HTTP 503\)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_hub_refuses_is_a_sentence_and_nothing_can_be_seen(here, command, tmp_path, monkeypatch, fault):
    folder = write_adapter(tmp_path / "adapter")
    if fault == "refused":
        here.refuse(NAME)
    elif fault == "another's token":
        monkeypatch.setenv("HF_TOKEN", SECRET)
    elif fault == "bad card":
        (folder / "README.md").write_text("---\nbase_model: /home/me\n---\n")
    elif fault in ("down", "out of order"):
        here.down(503 if fault == "out of order" else 0)
    name = NAME if fault != "no name" else "my model"
    status, out, err = command("share", str(folder), "--to", name, "--yes")
    assert status == 1 and re.search(FAULTS[fault], err) and SECRET not in out + err
    assert visible(here) == {}


@pytest.mark.parametrize("killed", [False, True])
def test_an_upload_that_broke_off_shows_no_half_and_goes_on_with_what_is_missing(here, command, tmp_path, killed):
    folder = write_adapter(tmp_path / "adapter", megabytes=3)
    call = "share", str(folder), "--to", NAME, "--yes"
    here.cut_upload(after_bytes=1 << 20)
    if killed:
        environment = ENVIRONMENT | here.environment(tmp_path / "home") | {"HF_TOKEN": TOKEN}
        unseen = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen([sys.executable, "-m", "unsloth_course", *call], env=environment, **unseen)
        end = time.monotonic() + 120
        while set(puts(here)) != {0, 200}:  # it would try the cut one again and again
            assert running.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        running.kill()
        running.wait()
    else:
        status, _, err = command(*call)
        assert status == 1 and "broke off: the Hub at" in err and "goes on with what is missing" in err
    assert puts(here).count(200) == 1 and visible(here) == {}  # the small one is there and not to be seen
    here.heal()
    here.requests.clear()
    assert command(*call)[0] == 0 and puts(here) == [200]
    assert visible(here) == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_ctrl_c_ends_with_a_sentence(here, command, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    status, _, err = command("share", str(write_adapter(tmp_path / "adapter")), "--to", NAME, "--yes")
    assert status == 130 and "Stopped by Ctrl-C; nothing can be seen there" in err and visible(here) == {}


def test_what_was_shared_gives_the_same_answers(here, load, with_adapter, command, tmp_path):
    import torch

    from unsloth_course import data

    model, tokenizer = with_adapter()
    rows = data.sources.instructions("pocket", train=1, held_out=20, seed=3407)[1]
    questions = [data.instruction.question(row["instruction"], row["input"]) for row in rows]
    base = models.answer(model, tokenizer, questions)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.03)
    wanted = models.answer(model, tokenizer, questions)
    assert sum(map(str.__ne__, base, wanted)) > 5  # an adapter that is seen in the answers
    models.save_adapter(model, tokenizer, tmp_path / "run" / "adapter", base="pocket")
    merged = tmp_path / "run" / "export" / "merged"
    model.save_pretrained_merged(str(merged), tokenizer, save_method="merged_16bit")
    status, _, err = command("share", str(merged), "--to", NAME, "--yes")
    assert status == 0, err
    shutil.rmtree(tmp_path / "run")
    loaded, tokenizer = load(model_name=models.folder(NAME))
    assert models.answer(loaded, tokenizer, questions) == wanted
    told = b"".join(content for name, content in visible(here).items() if not name.endswith(".safetensors"))
    assert not [path for path in (models.folder("pocket"), str(tmp_path)) if path.encode() in told]
