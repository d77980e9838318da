"""The profile, decided from made facts about machines, and the environment that it prepares."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from unsloth_course import profile
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.profile import ENGLISH, HUB_MODEL, POCKET, SMOLLM2, Machine

GIB = 1024**3
CPU = Machine(cuda_name=None, cuda_bytes=0, bfloat16=False, cores=2, memory_bytes=8 * GIB, apple_silicon=False)
L4 = replace(CPU, cuda_name="NVIDIA L4", cuda_bytes=22 * GIB, bfloat16=True)
T4 = replace(CPU, cuda_name="Tesla T4", cuda_bytes=15 * GIB, bfloat16=False)
MAC = replace(CPU, cores=10, apple_silicon=True)
OFFLINE = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}


def chosen(found: profile.Profile, what: str) -> profile.Choice:
    return next(choice for choice in found.reasons if choice.what == what)


ALPACA = "yahma/alpaca-cleaned"


@pytest.mark.parametrize(
    ("machine", "how", "decided", "offline"),
    [
        (CPU, {}, ("cpu", POCKET, POCKET, 128), True),
        (L4, {}, ("gpu", HUB_MODEL, ALPACA, 512), False),
        (T4, {}, ("gpu", HUB_MODEL, ALPACA, 512), False),
        (L4, {"lesson": "grpo"}, ("gpu", HUB_MODEL, ENGLISH, 512), False),
        (L4, {"name": "cpu"}, ("cpu", POCKET, POCKET, 128), True),
        (T4, {"model": POCKET}, ("gpu", POCKET, POCKET, 128), True),
        (T4, {"model": POCKET, "data": ALPACA}, ("gpu", POCKET, ALPACA, 128), False),
        (CPU, {"data": ALPACA}, ("cpu", POCKET, ALPACA, 128), False),
        (CPU, {"model": HUB_MODEL}, ("cpu", HUB_MODEL, ALPACA, 256), False),
        (CPU, {"model": HUB_MODEL, "data": ENGLISH}, ("cpu", HUB_MODEL, ENGLISH, 256), False),
    ],
)
def test_what_a_machine_gets(machine, how, decided, offline):
    found = profile.decide(machine, **how)
    assert (found.name, found.model, found.data, found.max_length) == decided
    assert found.bundled == (found.model == POCKET)
    assert ("UNSLOTH_FORCE_CPU" in found.environment) == (found.name == "cpu")
    # The network is shut only when model and data need none.
    assert OFFLINE & found.environment.keys() == (OFFLINE if offline else set())
    assert chosen(found, "network").value == ("none" if offline else "Hugging Face Hub")
    for asked, what in (("name", "profile"), ("model", "model"), ("data", "data")):
        assert (chosen(found, what).why == "asked for") == (asked in how)
    gpu = f"{machine.cuda_name}, {machine.cuda_bytes // GIB} GiB"
    assert found.device == (gpu if found.name == "gpu" else "2 CPU cores, 8 GiB")
    assert found.memory_bytes == (machine.cuda_bytes if found.name == "gpu" else machine.memory_bytes)


def test_on_a_cpu_numbers_are_the_same_everywhere():
    found = profile.decide(CPU)
    assert found.dtype == "float32" and str(found.torch_dtype) == "torch.float32" and found.arguments["use_cpu"] is True
    assert found.arguments["bf16"] is False and found.arguments["fp16"] is False


def test_on_a_gpu_unsloth_chooses_the_number_type():
    """A T4 emulates bfloat16 and then claims it, so neither type nor switch may be passed on."""
    for machine, words in ((L4, "bfloat16"), (T4, "float16")):
        found = profile.decide(machine)
        assert found.dtype is None and found.torch_dtype is None
        assert not {"bf16", "fp16", "use_cpu"} & found.arguments.keys()
        assert chosen(found, "number type").value == words


def test_bfloat16_weights_are_a_matter_of_the_gpu_that_is_used():
    assert profile.decide(L4).bfloat16 and not profile.decide(T4).bfloat16
    assert not profile.decide(L4, "cpu").bfloat16, "on a CPU the weights are float32, whatever card lies beside it"


def test_cuda_graphs_are_for_gpus_on_which_they_were_measured():
    h200 = replace(L4, cuda_name="NVIDIA H200", capability=(9, 0))
    assert profile.decide(h200).environment["UNSLOTH_BLOCK_CUDAGRAPHS"] == "1" and profile.decide(h200).graphs
    for found in (profile.decide(L4), profile.decide(T4), profile.decide(h200, "cpu")):
        assert not found.graphs and "UNSLOTH_BLOCK_CUDAGRAPHS" not in found.environment
    # Completions have another length at every step.
    assert not profile.decide(h200, lesson="grpo").graphs


def test_blocks_are_compiled_where_that_was_measured_or_pays():
    h200 = replace(L4, cuda_name="NVIDIA H200", capability=(9, 0))
    short = [profile.decide(gpu, lesson="grpo") for gpu in (T4, h200)]  # no graphs there that compiling would serve
    for found in (profile.decide(T4), profile.decide(L4, updates=200), *short):
        assert found.environment["UNSLOTH_BLOCK_COMPILE"] == "0" and chosen(found, "compiled blocks").value == "off"
    long = [profile.decide(gpu, lesson="grpo", updates=5000) for gpu in (T4, h200)]
    for found in (profile.decide(h200), *long, profile.decide(CPU)):
        assert "UNSLOTH_BLOCK_COMPILE" not in found.environment


def test_prompts_of_a_group_are_shared_where_the_model_is_large_enough_to_gain_by_it():
    apart = [profile.decide(T4, lesson="grpo", model=model) for model in (None, "smollm2", "pocket")]
    shared = profile.decide(T4, lesson="grpo", model="Qwen/Qwen3-4B"), profile.decide(T4), profile.decide(CPU)
    assert {found.environment.get("UNSLOTH_GRPO_PREFIX_GROUPER") for found in apart} == {"0"}
    assert not any("UNSLOTH_GRPO_PREFIX_GROUPER" in found.environment for found in shared)


def test_a_gpu_that_is_not_there_is_a_sentence():
    with pytest.raises(CourseError) as error:
        profile.decide(CPU, "gpu")
    assert "torch finds none" in str(error.value) and "doctor" in str(error.value) and HUB_MODEL in str(error.value)


@pytest.mark.parametrize("name", ["GPU", "tpu", "", "auto"])
def test_an_unknown_profile_is_a_sentence(name):
    with pytest.raises(CourseError, match=f'no profile "{name}"'):
        profile.decide(L4, name)


@pytest.mark.parametrize("lesson", ["lora", "full", "dpo", "grpo", "cpt"])
def test_the_real_model_from_the_package_index_needs_no_hub_in_any_lesson(lesson, monkeypatch):
    for fetched, network in ((False, "package index"), (True, "none")):
        monkeypatch.setattr(profile.smollm2, "is_fetched", lambda fetched=fetched: fetched)
        for found in (
            profile.decide(CPU, model=SMOLLM2, lesson=lesson),
            profile.decide(L4, None, SMOLLM2, lesson=lesson),
        ):
            assert (found.data, found.bundled) == (ENGLISH, False)
            assert found.environment.keys() >= OFFLINE
            assert chosen(found, "network").value == network
            assert "rounded to about 4.5 bits" in chosen(found, "model").why
    found = profile.decide(CPU, model=SMOLLM2, data="yahma/alpaca-cleaned")
    assert chosen(found, "network").value == "Hugging Face Hub" and not OFFLINE & found.environment.keys()


def test_a_value_is_picked_for_the_model_at_hand():
    values = {"bundled": 1, "gpu": 2, "cpu": 3}
    assert profile.decide(L4, model=POCKET).pick(**values) == profile.decide(CPU).pick(**values) == 1
    assert profile.decide(L4).pick(**values) == 2
    assert profile.decide(CPU, model=SMOLLM2).pick(**values) == 3
    assert profile.decide(CPU, model=SMOLLM2).pick(bundled=1, gpu=2) == 2


def test_full_fine_tuning_keeps_float32_weights_where_bfloat16_ones_would_round_its_steps_away():
    assert profile.decide(L4, lesson="full").mixed_precision
    assert profile.decide(L4, model=POCKET, lesson="full").mixed_precision
    others = (profile.decide(L4), profile.decide(T4, lesson="full"), profile.decide(L4, "cpu", lesson="full"))
    assert not any(found.mixed_precision for found in others)


def test_files_of_the_learner_need_no_network_and_are_not_called_bundled(tmp_path):
    data = tmp_path / "mine.json"
    data.write_text("[]")
    found = profile.decide(CPU, data=str(data))
    assert chosen(found, "network") == profile.Choice("network", "none", "model and data are on this machine")
    assert not OFFLINE & found.environment.keys()
    assert chosen(profile.decide(CPU, data="not/there.json"), "network").value == "Hugging Face Hub"


def test_apple_silicon_leaves_the_branch_without_dpo_and_grpo():
    found = profile.decide(MAC)
    assert found.name == "cpu"
    assert found.environment["UNSLOTH_FORCE_GPU_PATH"] == "1"
    assert "UNSLOTH_FORCE_GPU_PATH" not in profile.decide(CPU).environment


@pytest.mark.parametrize(
    "found",
    [
        profile.decide(CPU),
        profile.decide(L4),
        profile.decide(T4, model=POCKET),
        profile.decide(CPU, "cpu", HUB_MODEL),
        profile.decide(MAC),
    ],
)
def test_every_choice_has_its_reason(found):
    names = [choice.what for choice in found.reasons]
    assert {"profile", "device", "model", "data", "number type", "network", "row length", "batch"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(choice.value.strip() and choice.why.strip() for choice in found.reasons)
    assert chosen(found, "row length").value == f"{found.max_length} tokens"
    assert chosen(found, "batch").value.startswith(f"{found.arguments['per_device_train_batch_size']} rows")
    assert found.arguments["report_to"] == "none"


def test_it_prints_as_a_table_with_columns_in_line():
    found = profile.decide(CPU)
    lines = str(found).splitlines()
    assert len(lines) == len(found.reasons) and repr(found) == str(found)
    pairs = zip(lines, found.reasons, strict=True)
    assert len({(line.index(choice.value), line.index(choice.why)) for line, choice in pairs}) == 1


def test_names_are_escaped_in_the_table_of_a_notebook():
    page = profile.decide(CPU, model="<script>alert(1)</script>", data="a&b")._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a&amp;b" in page
    assert page.count("<tr>") == 1 + len(profile.decide(CPU).reasons)


@pytest.fixture
def kernel(monkeypatch):
    """A kernel in which nothing was detected and Unsloth was not imported; the environment is put back afterwards."""
    before = dict(os.environ)
    for machine in (CPU, MAC, L4):
        for name in profile.decide(machine).environment:
            os.environ.pop(name, None)
    monkeypatch.setattr(profile, "_written", set())
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    monkeypatch.setitem(
        sys.modules, "huggingface_hub", SimpleNamespace(constants=SimpleNamespace(HF_HUB_OFFLINE=False))
    )

    def on(machine: Machine) -> None:
        monkeypatch.setattr(profile, "facts", lambda: machine)

    on(CPU)
    yield on
    os.environ.clear()
    os.environ.update(before)


def prepared() -> dict[str, str]:
    names = ("UNSLOTH_FORCE_CPU", "UNSLOTH_FORCE_GPU_PATH", *sorted(OFFLINE))
    return {name: os.environ[name] for name in names if name in os.environ}


def test_detect_prepares_the_environment(kernel):
    found = profile.detect()
    assert found.environment.items() <= os.environ.items()
    assert prepared() == {"UNSLOTH_FORCE_CPU": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def test_a_second_thought_takes_the_first_one_back(kernel):
    """PROFILE = "cpu", then None: Unsloth must not stay on the CPU because of what the first try left behind."""
    kernel(L4)
    profile.detect("cpu")
    profile.detect(None)
    assert prepared() == {}
    profile.detect("cpu")
    assert prepared().keys() == {"UNSLOTH_FORCE_CPU", *OFFLINE}


def test_what_the_learner_sets_later_is_not_taken_back(kernel):
    kernel(L4)
    profile.detect("cpu")
    profile.detect()
    os.environ["UNSLOTH_FORCE_CPU"] = "1"
    profile.detect()
    assert prepared() == {"UNSLOTH_FORCE_CPU": "1"}


def test_without_unsloth_it_is_said_how_it_gets_here(kernel, monkeypatch):
    """As for whoever installed requirements.txt with pip alone."""
    monkeypatch.setattr(profile.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match=r"setup_venv\.sh .*--no-deps unsloth==[\d.]+ unsloth_zoo==[\d.]+$"):
        profile.detect()


def test_what_the_learner_set_is_not_taken_back(kernel, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    profile.detect()
    profile.detect(model=HUB_MODEL)
    assert prepared() == {"UNSLOTH_FORCE_CPU": "1", "HF_HUB_OFFLINE": "1"}


def test_after_the_hub_client_was_loaded_offline_a_hub_model_is_a_sentence_and_a_file_is_well(
    kernel, monkeypatch, tmp_path
):
    profile.detect()
    offline = SimpleNamespace(constants=SimpleNamespace(HF_HUB_OFFLINE=True))
    monkeypatch.setitem(sys.modules, "huggingface_hub", offline)
    with pytest.raises(CourseError, match=r"do without the network.*SmolLM2.*Restart the kernel"):
        profile.detect(model=HUB_MODEL)
    data = tmp_path / "mine.json"
    data.write_text("[]")
    assert profile.detect(data=str(data)).data == str(data)


@pytest.mark.parametrize(("loaded", "asked", "machine"), [("cuda", "cpu", L4), ("cpu", "gpu", L4), ("hip", "cpu", CPU)])
def test_unsloth_on_another_device_is_a_sentence_and_on_the_same_one_well(kernel, monkeypatch, loaded, asked, machine):
    kernel(machine)
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(DEVICE_TYPE=loaded))
    with pytest.raises(CourseError, match=f"already loaded for the {loaded}.*Restart the kernel"):
        profile.detect(asked)
    assert prepared() == {}
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(DEVICE_TYPE="cuda" if asked == "gpu" else "cpu"))
    assert profile.detect(asked).name == asked


@pytest.mark.slow
def test_this_machine_in_a_process_of_its_own():
    script = (
        "import os, sys\nfrom unsloth_course import profile\nfound = profile.detect('cpu')\nprint(found)\n"
        "assert os.environ['UNSLOTH_FORCE_CPU'] == '1' and os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "assert 'unsloth' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{os.cpu_count()} CPU cores" in done.stdout


FAULTS = """
import resource, sys
from unsloth_course import profile
kept = len(sys.argv) > 1 and profile.keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytes(bytearray(8 << 20))
before = faults()
for _ in range(40):
    bytes(bytearray(8 << 20))
print(int(bool(kept)), faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
@pytest.mark.slow
def test_freed_memory_is_kept_for_the_next_tensor():
    def count(*arguments):
        done = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    kept, few = count("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert few < 0.1 * count()[1]


def test_freed_memory_elsewhere_is_left_to_the_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert profile.keep_freed_memory() is False


@pytest.mark.slow
def test_the_profiler_that_measures_memory_writes_nothing():
    script = """
from unsloth_course import profile
profile.detect("cpu")
import torch
older = torch.ones(1000, 1000)
with torch.profiler.profile(profile_memory=True):
    del older
    torch.ones(10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
