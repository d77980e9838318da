"""What is decided for which machine: refusals, what becomes of a venv, and the steps."""

import pytest

from unsloth_course.setup import deciding
from unsloth_course.setup.deciding import Step, Verdict
from unsloth_course.setup.looking import GB, Machine, Venv
from unsloth_course.setup.pins import name_and_version, pinned

from .made import CREATE, FOLDER, LINUX, MAC, PINS, READY, WINDOWS, a_wheel, with_driver

WANTED = "fingerprint"


def steps_for(machine: Machine, verdict: Verdict = CREATE) -> list[Step]:
    return deciding.plan(machine, verdict, PINS, "PY", FOLDER)


def torch_chain(machine: Machine) -> list[Step]:
    step = next(step for step in steps_for(machine) if step.name.startswith("PyTorch") and "loads" not in step.name)
    chain = [step]
    while chain[-1].otherwise:
        chain.append(chain[-1].otherwise)
    return chain


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(python=(3, 10, 14)), ["3.10.14", "3.11, 3.12 or 3.13"]),
        (Machine(python=(3, 14, 0)), ["3.14.0", "3.11, 3.12 or 3.13"]),
        (Machine("Darwin", "x86_64"), ["Intel"]),
        (Machine("Windows", "ARM64"), ["x64"]),
        (Machine("Windows", "AMD64", bits=32), ["64-bit"]),
        (Machine(free_bytes=3 * GB), ["3.0 GB free"]),
        (Machine(free_bytes=11 * GB, nvidia_driver=True), ["12 GB"]),
    ],
)
def test_machines_that_cannot_work_are_refused_with_the_reason(machine, words):
    sentence = deciding.refusal(machine, fresh=True)
    assert all(word in sentence for word in words)


def test_supported_pythons_enough_disk_and_the_finishing_on_a_full_one_are_accepted():
    for python in ((3, 11, 0), (3, 12, 3), (3, 13, 9)):
        assert deciding.refusal(Machine(python=python, free_bytes=11 * GB), fresh=True) is None
    assert deciding.refusal(Machine(free_bytes=3 * GB), fresh=False) is None


@pytest.mark.parametrize(
    ("changes", "action", "word"),
    [
        ({"exists": False}, "create", "no venv yet"),
        ({}, "ready", "in place"),
        *(({"installed": READY | {"torch": torch}}, "ready", "") for torch in ("2.13.0+cpu", "2.13.0", "2.11.0+cu128")),
        ({"python": None}, "rebuild", "does not work"),
        ({"python": (3, 10, 2)}, "rebuild", "3.10.2"),
        ({"python": (3, 14, 0)}, "rebuild", "3.14.0"),
        ({"made_at": "/elsewhere/venv"}, "rebuild", "/elsewhere/venv"),
        ({"fingerprint": None}, "finish", "did not get to its end"),
        ({"fingerprint": "other"}, "finish", "changed"),
        ({"installed": READY | {"trl": "1.16.0"}}, "finish", "trl"),
        ({"installed": READY | {"torch": "2.15.0"}}, "finish", "torch"),
        ({"installed": READY | {"unsloth": "2026.10.7"}}, "finish", "unsloth"),
        ({"installed": {}}, "finish", "accelerate"),
        ({"made_at": None, "fingerprint": None}, "finish", "end"),
        ({"python": None, "ours_to_delete": False}, "refuse", FOLDER),
        ({"ours_to_delete": False}, "ready", "in place"),
        ({"unfinished": ("peft-0.21.2.dist-info",)}, "finish", "peft-0.21.2.dist-info"),
        ({"installed": {name: READY[name] for name in READY if name != "bitsandbytes"}}, "finish", "bitsandbytes"),
        ({"installed": {name: READY[name] for name in READY if name != "nbmake"}}, "finish", "nbmake"),
    ],
)
def test_what_becomes_of_a_venv(changes, action, word):
    facts = {"exists": True, "python": (3, 12, 3), "made_at": FOLDER, "fingerprint": WANTED, "installed": READY}
    verdict = deciding.decide(Venv(**(facts | changes)), FOLDER, WANTED, PINS, "Linux")
    assert verdict.action == action
    assert word in verdict.reason


def test_new_pins_another_python_or_a_driver_that_was_installed_later_finish_the_venv():
    first = deciding.fingerprint("a", (3, 12, 1), "cpu")
    assert first == deciding.fingerprint("a", (3, 12, 9), "cpu")
    others = [("b", (3, 12, 1), "cpu"), ("a", (3, 13, 1), "cpu"), ("a", (3, 12, 1), "cuda")]
    assert first not in [deciding.fingerprint(*other) for other in others]


def test_a_venv_to_be_finished_is_not_made_again():
    assert not any("venv" in command for step in steps_for(LINUX, Verdict("finish", "")) for command in step.commands)


@pytest.mark.parametrize("machine", [LINUX, WINDOWS, MAC, with_driver(LINUX), with_driver(WINDOWS)])
def test_every_machine_gets_the_steps_in_order(machine):
    steps = steps_for(machine)
    order = ["virtual environment", "pinned", "PyTorch", "Unsloth", "package", "kernel", "loads"]
    assert len(steps) == len(order)
    assert all(word in step.name for word, step in zip(order, steps, strict=True))
    assert all(step.commands for step in steps)


def test_unsloth_comes_without_dependencies_and_the_kernel_stays_inside_the_venv():
    *_, unsloth, _, kernel, _ = (step.commands[0] for step in steps_for(LINUX))
    assert "--no-deps" in unsloth and unsloth[-2:] == PINS.no_deps
    assert kernel[kernel.index("--prefix") + 1] == FOLDER and "unsloth-course" in kernel


def test_linux_without_a_driver_tries_the_cpu_build_then_uv_then_the_plain_index():
    direct, uv, plain = torch_chain(LINUX)
    assert direct.commands[0][-1].endswith("+cpu")
    assert uv.commands[0][-1].startswith("uv==")
    assert uv.commands[1][uv.commands[1].index("--torch-backend") + 1] == "cpu"
    assert "--no-deps" not in plain.commands[0]
    assert "3 GB" in plain.name
    assert plain.needs_bytes == 12 * GB


def test_linux_with_a_driver_gets_cuda_and_never_the_cpu_pins():
    uv, plain = torch_chain(with_driver(LINUX))
    assert uv.commands[1][uv.commands[1].index("--torch-backend") + 1] == "auto"
    assert uv.commands[1][-len(PINS.cuda) :] == PINS.cuda == plain.commands[0][-len(PINS.cuda) :]
    cpu = pinned(PINS.all, "torch")
    assert not any(cpu in command for step in steps_for(with_driver(LINUX)) for command in step.commands)


def test_windows_with_a_driver_gets_cuda_through_uv_and_a_cpu_torch_as_the_last_resort():
    uv, plain = torch_chain(with_driver(WINDOWS))
    assert "auto" in uv.commands[1]
    assert plain.commands[0][-1] == pinned(PINS.all, "torch")
    assert "CPU" in plain.name


@pytest.mark.parametrize("machine", [WINDOWS, MAC, with_driver(MAC)])
def test_elsewhere_the_index_has_the_right_build(machine):
    (step,) = torch_chain(machine)
    assert step.commands[0][-1] == pinned(PINS.all, "torch")


def test_torch_is_not_among_the_packages_installed_before_it():
    for machine in (LINUX, with_driver(LINUX)):
        packages = next(step for step in steps_for(machine) if "pinned" in step.name).commands[0]
        assert not any(name_and_version(word)[0] == "torch" for word in packages)
        assert any(word.startswith("transformers==") for word in packages)


def test_a_driver_beside_a_cpu_torch_is_explained_with_the_command():
    notice = deciding.driver_notice("2.13.0+cpu", PINS, "venv/bin/python")
    assert "NVIDIA driver" in notice
    assert "--torch-backend auto" in notice
    assert pinned(PINS.cuda, "torch") in notice


def test_an_offline_set_up_asks_nothing_but_the_folder(tmp_path):
    a_wheel(tmp_path, "torch==2.13.0+cpu")
    for machine in (LINUX, WINDOWS, MAC, with_driver(LINUX)):
        steps = deciding.plan(machine, CREATE, PINS, "PY", FOLDER, tmp_path)
        assert steps[-1].commands == (("PY", "-m", "unsloth_course.lesson.smollm2", str(tmp_path)),)
        for step in steps:
            assert step.otherwise is None
            assert not any("uv" in command for command in step.commands)
            for command in step.commands:
                if "pip" in command:
                    assert {"--isolated", "--no-index"} < set(command)
                    assert command[command.index("--find-links") + 1] == str(tmp_path)


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ((r"C:\a b\python.exe", "-m", "pip"), r"& 'C:\a b\python.exe' -m pip"),
        (("python", "Python (unsloth-course)", "it's"), "python 'Python (unsloth-course)' 'it''s'"),
        ((r"C:\venv\python.exe", "torch==2.11.0"), r"C:\venv\python.exe torch==2.11.0"),
    ],
)
def test_commands_are_shown_as_powershell_takes_them(words, typed):
    assert deciding.shown(words, windows=True) == typed
