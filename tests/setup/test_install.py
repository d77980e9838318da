"""The set-up: what is decided for which machine, and what the executor and the two shims do."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsloth_course.setup import install
from unsloth_course.setup.install import GB, Machine, Pins, SetupError, Step, Venv, Verdict

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "requirements.txt").read_text(encoding="utf-8")
PINS = install.read_pins(TEXT)
LINUX = Machine("Linux", "x86_64", (3, 12, 3))
WINDOWS = Machine("Windows", "AMD64", (3, 11, 9))
MAC = Machine("Darwin", "arm64", (3, 13, 0))
CREATE = Verdict("create", "there is no venv yet")
FOLDER = "/course/venv"
READY = {name: version for name, version in map(install.name_and_version, (*PINS.all, *PINS.no_deps))}


def with_driver(machine: Machine) -> Machine:
    return Machine(machine.system, machine.architecture, machine.python, nvidia_driver=True)


def steps_for(machine: Machine, verdict: Verdict = CREATE) -> list[Step]:
    return install.plan(machine, verdict, PINS, "PY", FOLDER)


def torch_chain(machine: Machine) -> list[Step]:
    step = next(step for step in steps_for(machine) if step.name.startswith("PyTorch") and "loads" not in step.name)
    chain = [step]
    while chain[-1].otherwise:
        chain.append(chain[-1].otherwise)
    return chain


def wanted(python, flavour="cpu"):
    return install.fingerprint(TEXT, python, flavour)


def judged(venv: Venv, flavour: str = "cpu") -> Verdict:
    return install.judge(venv, FOLDER, lambda python: wanted(python, flavour), PINS, "Linux")


def finished(**changes) -> Venv:
    facts = {
        "exists": True,
        "python": (3, 12, 3),
        "made_at": FOLDER,
        "fingerprint": wanted((3, 12, 3)),
        "installed": READY,
    }
    return Venv(**(facts | changes))


# --- requirements.txt


def test_every_line_is_one_exact_pin_and_none_is_there_twice():
    names = [install.name_and_version(pin) for pin in (*PINS.all, *PINS.no_deps, *PINS.helper)]
    assert all(version for _, version in names)
    assert len({name for name, _ in names}) == len(names)


def test_the_pins_of_a_cpu_install_leave_out_what_breaks_it():
    names = {install.name_and_version(pin)[0] for pin in PINS.all}
    assert names.isdisjoint({"torchvision", "xformers", "diffusers", "unsloth", "unsloth-zoo", "mlx"})
    assert not any(name.startswith("nvidia-") for name in names)


def test_platform_packages_have_their_markers():
    line = {install.name_and_version(pin)[0]: pin for pin in PINS.all}
    assert 'sys_platform == "linux"' in line["triton"]
    assert all('sys_platform == "win32"' in line[name] for name in ("triton-windows", "colorama"))
    assert 'sys_platform == "darwin"' in line["appnope"]
    assert 'os_name != "nt"' in line["ptyprocess"]


def test_requirements_txt_is_complete():
    """Every dependency of every pinned package that is installed here is pinned too, at an allowed version."""
    from importlib import metadata

    from packaging.requirements import Requirement

    versions = dict(map(install.name_and_version, PINS.all))
    exceptions = {"certifi", "torchvision", "xformers", "diffusers"}
    missing = []
    for name in [*versions, "unsloth", "unsloth_zoo"]:
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            needed = install.name_and_version(requirement.name)[0]
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if not applies or needed in exceptions | {"unsloth-zoo"} or needed.startswith(("nvidia-", "cuda-")):
                continue
            if needed not in versions or not requirement.specifier.contains(versions[needed], prereleases=True):
                missing.append(f"{name} -> {requirement}")
    assert missing == []


def test_the_hand_written_guide_names_the_pinned_versions():
    guide = (ROOT / "VENV_SETUP.md").read_text(encoding="utf-8")
    pinned = {
        (name, version) for name, version in map(install.name_and_version, (*PINS.all, *PINS.no_deps, *PINS.cuda))
    }
    named = {(install.name_and_version(name)[0], version) for name, version in re.findall(r"([\w-]+)==([\w.]+)", guide)}
    assert named
    assert named <= pinned


def test_no_registry_host_is_written_anywhere():
    rooms = [path for room in ("setup", "commands/doctor") for path in (ROOT / "unsloth_course" / room).glob("*.py")]
    for path in (ROOT / "requirements.txt", ROOT / "VENV_SETUP.md", *rooms):
        text = path.read_text(encoding="utf-8")
        assert "http" + "s://" not in text
        assert "pytorch" + ".org" not in text


def test_read_pins_sorts_lines_by_what_is_done_with_them():
    pins = install.read_pins(
        "# == a: first\nx==1\n\n# a comment\n# == b\ny==2 ; m\n#cuda x==3\n#no-deps z==4\n#helper uv==5\n#model w==6\n"
    )
    assert pins == Pins({"a": ("x==1",), "b": ("y==2 ; m",)}, ("x==3",), ("z==4",), ("uv==5",), ("w==6",))


@given(st.text())
def test_read_pins_takes_any_text(text):
    assert all(pin.strip() for pin in install.read_pins(text).all)


def test_names_are_normalised():
    assert install.name_and_version('Hf_Xet==1.8.0 ; python_version < "3.12"') == ("hf-xet", "1.8.0")
    assert install.name_and_version("torch==2.13.0+cpu") == ("torch", "2.13.0+cpu")


@pytest.mark.parametrize("pin", [pin for pin in (*PINS.all, *PINS.cuda) if ";" in pin])
@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
def test_markers_are_understood_as_pip_understands_them(pin, python, system):
    from packaging.markers import Marker

    version = ".".join(map(str, python))
    where = {"Linux": ("linux", "posix"), "Darwin": ("darwin", "posix"), "Windows": ("win32", "nt")}[system]
    there = {"sys_platform": where[0], "os_name": where[1], "platform_system": system}
    there |= {"python_version": version, "python_full_version": f"{version}.4"}
    assert install.applies(pin, system, python) == Marker(pin.partition(";")[2]).evaluate(there)


# --- refusals


@pytest.mark.parametrize("python", [(3, 11, 0), (3, 12, 3), (3, 13, 9)])
def test_supported_pythons_are_accepted(python):
    assert install.refusal(Machine(python=python), fresh=True) is None


@pytest.mark.parametrize("python", [(3, 10, 14), (3, 14, 0), (2, 7, 18)])
def test_other_pythons_are_refused_in_a_sentence(python):
    sentence = install.refusal(Machine(python=python), fresh=True)
    assert ".".join(map(str, python)) in sentence
    assert "3.11, 3.12 or 3.13" in sentence


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        (Machine("Darwin", "x86_64"), "Intel"),
        (Machine("Windows", "ARM64"), "x64"),
        (Machine("Windows", "AMD64", bits=32), "64-bit"),
        (Machine(free_bytes=3 * GB), "3.0 GB free"),
        (Machine(free_bytes=11 * GB, nvidia_driver=True), "12 GB"),
    ],
)
def test_machines_that_cannot_work_are_refused_with_the_reason(machine, word):
    assert word in install.refusal(machine, fresh=True)


def test_a_full_disk_does_not_stop_the_finishing_of_a_venv():
    assert install.refusal(Machine(free_bytes=3 * GB), fresh=False) is None


def test_eleven_gigabytes_are_enough_without_a_driver():
    assert install.refusal(Machine(free_bytes=11 * GB), fresh=True) is None


# --- what is to be done with venv


def test_no_venv_is_created():
    assert judged(Venv()).action == "create"


def test_a_finished_venv_is_ready():
    assert judged(finished()) == Verdict("ready", "all is in place")


@pytest.mark.parametrize("torch", ["2.13.0+cpu", "2.13.0", "2.11.0+cu128", "2.11.0"])
def test_a_tested_torch_of_either_kind_is_ready(torch):
    assert judged(finished(installed=READY | {"torch": torch})).action == "ready"


@pytest.mark.parametrize(
    ("changes", "action", "word"),
    [
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
def test_a_venv_with_a_fault(changes, action, word):
    verdict = judged(finished(**changes))
    assert verdict.action == action
    assert word in verdict.reason


def test_a_driver_that_was_installed_later_changes_the_torch():
    assert judged(finished(), flavour="cuda").action == "finish"


def test_new_pins_finish_the_venv():
    assert install.fingerprint("a", (3, 12, 1), "cpu") != install.fingerprint("b", (3, 12, 1), "cpu")
    assert install.fingerprint("a", (3, 12, 1), "cpu") == install.fingerprint("a", (3, 12, 9), "cpu")
    assert install.fingerprint("a", (3, 12, 1), "cpu") != install.fingerprint("a", (3, 13, 1), "cpu")


# --- the steps


def test_nothing_is_done_when_all_is_ready():
    assert steps_for(LINUX, Verdict("ready", "")) == []


@pytest.mark.parametrize("machine", [LINUX, WINDOWS, MAC, with_driver(LINUX), with_driver(WINDOWS)])
def test_every_machine_gets_the_steps_in_order_with_a_reason_each(machine):
    steps = steps_for(machine)
    order = ["virtual environment", "pinned", "PyTorch", "Unsloth", "package", "kernel", "loads"]
    assert len(steps) == len(order)
    assert all(word in step.name for word, step in zip(order, steps, strict=True))
    assert all(step.reason and step.commands for step in steps)


def test_a_venv_to_be_finished_is_not_made_again():
    assert not any("venv" in command for step in steps_for(LINUX, Verdict("finish", "")) for command in step.commands)


def test_unsloth_comes_after_torch_and_without_dependencies():
    (command,) = next(step.commands for step in steps_for(LINUX) if step.name == "Unsloth")
    assert "--no-deps" in command
    assert command[-2:] == PINS.no_deps


def test_the_kernel_stays_inside_the_venv():
    (command,) = next(step.commands for step in steps_for(LINUX) if "kernel" in step.name)
    assert command[command.index("--prefix") + 1] == FOLDER
    assert "unsloth-course" in command


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
    cpu = install.pinned(PINS.all, "torch")
    assert not any(cpu in command for step in steps_for(with_driver(LINUX)) for command in step.commands)


def test_windows_with_a_driver_gets_cuda_through_uv_and_a_cpu_torch_as_the_last_resort():
    uv, plain = torch_chain(with_driver(WINDOWS))
    assert "auto" in uv.commands[1]
    assert plain.commands[0][-1] == install.pinned(PINS.all, "torch")
    assert "CPU" in plain.name


@pytest.mark.parametrize("machine", [WINDOWS, MAC, with_driver(MAC)])
def test_elsewhere_the_index_has_the_right_build(machine):
    (step,) = torch_chain(machine)
    assert step.commands[0][-1] == install.pinned(PINS.all, "torch")


def test_torch_is_not_among_the_packages_installed_before_it():
    for machine in (LINUX, with_driver(LINUX)):
        packages = next(step for step in steps_for(machine) if "pinned" in step.name).commands[0]
        assert not any(install.name_and_version(word)[0] == "torch" for word in packages)
        assert any(word.startswith("transformers==") for word in packages)


def test_a_driver_beside_a_cpu_torch_is_explained_with_the_command():
    notice = install.driver_notice("2.13.0+cpu", None, PINS, "venv/bin/python")
    assert "NVIDIA driver" in notice
    assert "--torch-backend auto" in notice
    assert install.pinned(PINS.cuda, "torch") in notice
    assert install.driver_notice("2.11.0", "13.0", PINS, "python") == ""


# --- looking at a folder


def make_package(venv: Path, name: str, version: str, record: bool = True) -> Path:
    info = venv / f"lib/python3.12/site-packages/{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("")
    if record:
        (info / "RECORD").write_text("")
    return info


def test_versions_are_read_off_folder_names(tmp_path):
    make_package(tmp_path, "torch", "2.13.0+cpu")
    make_package(tmp_path, "unsloth_zoo", "2026.10.9")
    assert install.installed_versions(tmp_path) == {"torch": "2.13.0+cpu", "unsloth-zoo": "2026.10.9"}


def test_packages_that_a_killed_pip_left_are_found(tmp_path):
    make_package(tmp_path, "whole", "1")
    half = make_package(tmp_path, "half", "1", record=False)
    gone = half.parent / "~umpy"
    gone.mkdir()
    assert sorted(install.unfinished_packages(tmp_path)) == sorted([half, gone])


def test_the_cuda_version_of_torch_is_read_without_importing_it(tmp_path):
    (tmp_path / "torch").mkdir()
    version = tmp_path / "torch" / "version.py"
    assert install.cuda_of_torch(tmp_path) is None
    version.write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n")
    assert install.cuda_of_torch(tmp_path) is None
    version.write_text("__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    assert install.cuda_of_torch(tmp_path) == "13.0"


def test_a_folder_that_is_no_venv_is_not_ours_to_delete(tmp_path):
    assert install.look_at(tmp_path / "absent") == Venv()
    (tmp_path / "venv").mkdir()
    assert install.look_at(tmp_path / "venv").ours_to_delete
    (tmp_path / "venv" / "thesis.txt").write_text("years of work")
    assert not install.look_at(tmp_path / "venv").ours_to_delete


def test_a_link_is_not_followed_for_deletion(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "venv").symlink_to(tmp_path / "real")
    assert not install.look_at(tmp_path / "venv").ours_to_delete


def test_a_venv_without_pip_or_with_a_dangling_python_does_not_work(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    assert install.look_at(tmp_path / "venv").python is None
    install.venv_python(tmp_path / "venv").unlink()
    assert install.look_at(tmp_path / "venv").python is None


def test_this_python_works():
    assert install.working_python(Path(sys.executable)) == sys.version_info[:3]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.one_of(st.binary(), st.text().map(str.encode), st.builds(lambda x: json.dumps(x).encode(), st.lists(st.text())))
)
def test_any_stamp_can_be_read(tmp_path, content):
    (tmp_path / install.STAMP).write_bytes(content)
    assert install.look_at(tmp_path).exists


# --- doing it


def run_python(name: str, code: str, **more) -> Step:
    return Step(name, ((sys.executable, "-c", code),), "because", **more)


def test_steps_run_in_order_with_a_line_each(tmp_path):
    lines = []
    write = "open('log', 'a').write({!r})"
    install.carry_out(
        [run_python("one", write.format("1")), run_python("two", write.format("2"))], tmp_path, lines.append
    )
    assert (tmp_path / "log").read_text() == "12"
    assert [re.sub(r"\d+ s$", "N s", line) for line in lines] == ["[1/2] one: N s", "[2/2] two: N s"]


def test_a_failed_step_says_what_where_and_what_next(tmp_path):
    fail = run_python("packages", "print('ERROR: No matching distribution found for trl==1.15.0'); raise SystemExit(1)")
    with pytest.raises(SetupError) as error:
        install.carry_out([fail, run_python("never", "open('never', 'w')")], tmp_path, lambda line: None)
    assert "Step 1 of 2, packages, failed" in str(error.value)
    assert "has no trl==1.15.0" in str(error.value)
    assert "run this again" in str(error.value)
    assert not (tmp_path / "never").exists()


def test_the_other_way_is_tried_and_said(tmp_path):
    lines = []
    other = Step("uv", ((sys.executable, "-c", "open('done', 'w')"),), "the index has none")
    install.carry_out([run_python("pip", "raise SystemExit(1)", otherwise=other)], tmp_path, lines.append)
    assert (tmp_path / "done").exists()
    assert "the index has none" in lines[0]


def test_a_step_that_needs_more_disk_than_there_is_does_not_start(tmp_path):
    big = run_python("big", "open('started', 'w')", needs_bytes=10**18)
    with pytest.raises(SetupError, match="disk is full"):
        install.carry_out([big], tmp_path, lambda line: None)
    assert not (tmp_path / "started").exists()


def test_the_disk_that_fills_is_the_one_that_is_looked_at(tmp_path, monkeypatch):
    free = {tmp_path: 10 * GB, tmp_path / "wheels": 0}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[Path(path)]))
    step = run_python("torch", "open('started', 'w')", needs_bytes=GB)
    install.carry_out([step], tmp_path, lambda line: None)
    (tmp_path / "started").unlink()
    with pytest.raises(SetupError, match="disk is full"):
        install.carry_out([replace(step, into=str(tmp_path / "wheels"))], tmp_path, lambda line: None)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("columns", [40, 200])
def test_the_seconds_stay_on_one_line(columns, monkeypatch):
    written = io.StringIO()
    written.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setenv("COLUMNS", str(columns))
    install._show_seconds("[3/7] PyTorch torch==2.13.0 for the CPU ... 12 s, and a long name of a step as well")
    lines = written.getvalue().split("\r")
    assert "\n" not in written.getvalue() and max(map(len, lines)) == columns - 1


WAITS = """
import signal, sys, time
def end(*_):
    time.sleep(1)
    print("kept what there was", flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, end)
print("running", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="process groups of POSIX")
def test_ctrl_c_leaves_the_end_to_the_program_that_was_asked_for():
    program = (
        "import sys; from pathlib import Path; from unsloth_course.setup import install; "
        "install.set_up = lambda *_, **__: Path(sys.executable); "
        f"install.command_after = lambda _: ['-c', {WAITS!r}]; sys.exit(install.main([]))"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout.readline() == "running\n"
    os.killpg(started.pid, signal.SIGINT)
    said, _ = started.communicate(timeout=30)
    assert (said, started.returncode) == ("kept what there was\n", 7)


def test_a_command_that_does_not_exist_is_a_sentence(tmp_path):
    with pytest.raises(SetupError, match="Step 1 of 1"):
        install.carry_out([Step("odd", ((str(tmp_path / "absent"),),), "")], tmp_path, lambda line: None)


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying ... NameResolutionError\nERROR: No matching distribution found for rich==15", "network"),
        ("error: Request failed after 3 retries\n cause: dns error", "network"),
        ("ReadTimeoutError: Read timed out.", "network"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] Max retries exceeded", "certificate"),
        ("OSError: Could not find a suitable TLS CA certificate bundle, invalid path: /a b.pem", "no file /a b.pem,"),
        ("ERROR: 403 Client Error: Forbidden for url", "login"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no torch==2.13.0"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "python3-venv"),
        ("[WinError 32] The process cannot access the file", "VS Code"),
        ("OSError: [WinError 126] The specified module could not be found. Error loading c10.dll", "Visual C++"),
        ("error: subprocess-exited-with-error", "no ready-made build"),
        ("something new", "lines above"),
    ],
)
def test_failures_are_explained(output, word):
    assert word in install.explain(output)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course in a folder with a space and letters of three alphabets, in which commands are noted instead of run."""
    root = tmp_path / "Kurs äß 日本"
    root.mkdir()
    shutil.copy(ROOT / "requirements.txt", root)
    (root / "pyproject.toml").write_text("")
    commands = []

    def note(command, folder, doing):
        commands.append(command)
        return 0, ""

    monkeypatch.setattr(install, "_run", note)
    monkeypatch.setattr(install, "this_machine", lambda folder: LINUX)
    monkeypatch.setattr(install, "working_python", lambda python: (3, 12, 3) if commands else None)
    return root, commands


def settle(root: Path) -> None:
    for name, version in READY.items():
        if not (root / f"venv/lib/python3.12/site-packages/{name.replace('-', '_')}-{version}.dist-info").exists():
            make_package(root / "venv", name.replace("-", "_"), version)


def test_the_second_set_up_runs_nothing(course):
    root, commands = course
    said = []
    assert install.set_up(root, said.append) == install.venv_python(root / "venv")
    settle(root)
    count = len(commands)
    assert count == 7
    install.set_up(root, said.append)
    assert len(commands) == count


def test_a_set_up_that_fails_leaves_no_stamp_and_is_finished_next_time(course, monkeypatch):
    root, commands = course
    run = install._run
    monkeypatch.setattr(
        install, "_run", lambda command, *rest: (1, "dns error") if "unsloth" in str(command) else run(command, *rest)
    )
    with pytest.raises(SetupError, match="cannot be reached"):
        install.set_up(root, lambda line: None)
    half = make_package(root / "venv", "torch", "2.13.0+cpu", record=False)
    monkeypatch.setattr(install, "_run", run)
    said = []
    install.set_up(root, said.append)
    assert "did not get to its end" in said[0]
    assert not half.exists()
    settle(root)
    count = len(commands)
    install.set_up(root, said.append)
    assert len(commands) == count


def test_a_broken_venv_is_emptied_and_made_anew(course):
    root, commands = course
    old = root / "venv" / "lib" / "old.txt"
    old.parent.mkdir(parents=True)
    old.write_text("")
    (root / "venv" / "pyvenv.cfg").write_text("")
    install.set_up(root, lambda line: None)
    assert not old.exists()
    assert commands[0][-1] == str(root / "venv")


def test_a_folder_of_somebody_else_is_left_alone(course):
    root, commands = course
    (root / "venv").mkdir()
    (root / "venv" / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="Move it away"):
        install.set_up(root, lambda line: None)
    assert (root / "venv" / "thesis.txt").exists()
    assert commands == []


def test_a_missing_requirements_file_is_a_sentence(course):
    root, _ = course
    (root / "requirements.txt").unlink()
    with pytest.raises(SetupError, match=r"requirements\.txt cannot be read"):
        install.set_up(root, lambda line: None)


def test_a_driver_beside_a_cpu_torch_is_said_every_time(course, monkeypatch):
    root, _ = course
    monkeypatch.setattr(install, "this_machine", lambda folder: with_driver(WINDOWS))
    said = []
    install.set_up(root, said.append)
    settle(root)
    said.clear()
    install.set_up(root, said.append)
    assert len(said) == 1
    assert "NVIDIA driver" in said[0]


# --- the program


def test_arguments():
    assert install.command_after([]) == []
    tests = install.command_after(["--test", "-k", "a b"])
    assert tests[:3] == ["-m", "pytest", "-n"] and 1 <= int(tests[3]) <= install.TEST_PROCESSES
    assert tests[4:] == ["--dist", "loadfile", "--no-loadscope-reorder", "-k", "a b"]
    assert install.command_after(["--run", "lora", "--seed", "1"]) == [
        "-m",
        "unsloth_course",
        "run",
        "lora",
        "--seed",
        "1",
    ]


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--run"], "lora"), (["--run", "--seed"], "lora"), (["--tset"], "--tset")]
)
def test_wrong_arguments_are_a_sentence_and_install_nothing(arguments, word, monkeypatch, capsys):
    monkeypatch.setattr(install, "set_up", lambda root, **more: pytest.fail("set up"))
    assert install.main(arguments) == 1
    captured = capsys.readouterr()
    assert word in captured.err
    assert len(captured.err.splitlines()) == 1


def test_help_installs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(install, "set_up", lambda root, **more: pytest.fail("set up"))
    assert install.main(["--help"]) == 0
    assert "--run LESSON" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("", 0)])
def test_the_exit_status_is_passed_on(monkeypatch, code, status):
    monkeypatch.setattr(install, "set_up", lambda root, **more: Path(sys.executable))
    monkeypatch.setattr(install, "command_after", lambda arguments: ["-c", code])
    assert install.main(["--test"]) == status


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_is_not_taken_for_a_success(monkeypatch):
    monkeypatch.setattr(install, "set_up", lambda root, **more: Path(sys.executable))
    monkeypatch.setattr(install, "command_after", lambda _: ["-c", "import os; os.kill(os.getpid(), 9)"])
    assert install.main(["--test"]) == 128 + 9


def test_it_imports_nothing_outside_the_standard_library():
    """-S leaves site-packages out, so only the standard library can be imported."""
    path = ROOT / "unsloth_course" / "setup" / "install.py"
    done = subprocess.run(
        [sys.executable, "-S", str(path), "--help"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr


# --- the shims


def with_shim(folder, script):
    """A course with such a name that has the script, and an install.py that prints its arguments."""
    home = folder / "Kurs äß 日本"
    place = home / "unsloth_course" / "setup"
    place.mkdir(parents=True)
    shutil.copy(ROOT / script, home)
    (place / "install.py").write_text("import sys; print(*sys.argv[1:], sep='|'); sys.exit(5)")
    return home


@pytest.fixture
def shim(tmp_path):
    """setup_venv.sh in such a folder, beside an install.py that prints its arguments."""
    if os.name == "nt":
        pytest.skip("POSIX shell")
    home = with_shim(tmp_path, "setup_venv.sh")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dirname").symlink_to(shutil.which("dirname"))

    def run(*arguments, cwd="/"):
        command = [shutil.which("sh"), str(home / "setup_venv.sh"), *arguments]
        return subprocess.run(command, env={"PATH": str(tools)}, cwd=cwd, capture_output=True, text=True, check=False)

    def python(name: str, works: bool):
        program = tools / name
        program.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "$@"\n' if works else "#!/bin/sh\necho no such version\nexit 127\n"
        )
        program.chmod(0o755)

    return run, python


def test_the_shim_passes_arguments_and_the_exit_status_on(shim):
    run, python = shim
    python("python3", works=True)
    done = run("--run", "a b", "--seed", "1")
    assert done.stdout == "--run|a b|--seed|1\n"
    assert done.returncode == 5


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3.11", "python"])
def test_the_shim_goes_past_programs_that_are_there_and_do_not_work(shim, name):
    run, python = shim
    for other in ("python3", "python3.12", "python3.13", "python3.11", "python"):
        python(other, works=other == name)
    done = run("--test")
    assert (done.stdout, done.returncode) == ("--test\n", 5)


def test_the_shim_without_any_python_is_a_sentence(shim):
    run, python = shim
    python("python3", works=False)
    done = run()
    assert done.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13 was found" in done.stderr


def test_the_windows_shim_is_ascii_and_hands_over():
    text = (ROOT / "setup_venv.ps1").read_bytes().decode("ascii")
    assert "install.py" in text
    assert "@args" in text
    assert "exit $LASTEXITCODE" in text


def test_ci_calls_the_test_command():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "./setup_venv.sh --test"
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.fixture
def powershell(tmp_path):
    """setup_venv.ps1 beside an install.py that prints its arguments, and a Python on the PATH."""
    program = shutil.which("pwsh") or shutil.which("powershell")
    if program is None:
        pytest.skip("no PowerShell here")
    home = with_shim(tmp_path, "setup_venv.ps1")
    tools = tmp_path / "tools"
    tools.mkdir()

    def run(*arguments, python=True):
        environment = dict(os.environ)
        if os.name != "nt":
            environment["PATH"] = str(tools)
            if python:
                (tools / "python").symlink_to(sys.executable)
        elif not python:
            pytest.skip("Windows finds its launcher without the PATH")
        script = [program, "-NoProfile", "-NonInteractive", "-File", str(home / "setup_venv.ps1")]
        return subprocess.run([*script, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_windows_shim_passes_arguments_and_the_exit_status_on(powershell):
    done = powershell("--run", "a b", "--seed", "1")
    assert (done.stdout.strip(), done.returncode) == ("--run|a b|--seed|1", 5)


def test_the_windows_shim_without_any_python_is_a_sentence(powershell):
    done = powershell(python=False)
    assert done.returncode == 1 and "No Python 3.11, 3.12 or 3.13 was found" in done.stdout


# --- the dev container


def test_the_dev_container_is_a_supported_python_that_runs_the_set_up():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(text)
    version = tuple(map(int, container["image"].partition(":")[2].split(".")))
    assert install.OLDEST_PYTHON <= version <= install.NEWEST_PYTHON
    assert container["postCreateCommand"] == "./setup_venv.sh"
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        install.venv_python(Path("venv")).as_posix() if os.name != "nt" else "venv/bin/python"
    )
    (mount,) = container["mounts"]
    assert "target=${containerWorkspaceFolder}/venv," in mount and "type=volume" in mount


def test_the_empty_volume_of_the_container_is_filled_and_not_deleted(course):
    root, commands = course
    (root / "venv").mkdir()
    place = (root / "venv").stat().st_ino
    install.set_up(root, lambda line: None)
    assert commands and (root / "venv").stat().st_ino == place


# --- a set-up without network

TARGET = install.Target("Linux", "x86_64", (3, 12), "cpu")


def a_wheel(folder: Path, pin: str, tag: str = "py3-none-any") -> Path:
    """An empty package of that name and version."""
    import zipfile

    name, version = pin.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as file:
        info = f"{stem}.dist-info"
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return folder / f"{stem}-{tag}.whl"


@pytest.mark.parametrize(
    ("arguments", "machine", "target"),
    [
        ([], LINUX, TARGET),
        ([], MAC, install.Target("Darwin", "arm64", (3, 13), "cpu")),
        ([], with_driver(LINUX), install.Target("Linux", "x86_64", (3, 12), "cuda")),
        (["--system", "linux"], with_driver(LINUX), TARGET),
        (["--system", "windows"], with_driver(LINUX), install.Target("Windows", "AMD64", (3, 12), "cpu")),
        (["--system", "windows", "--cuda"], LINUX, install.Target("Windows", "AMD64", (3, 12), "cuda")),
        (["--python", "3.13", "--cuda"], LINUX, install.Target("Linux", "x86_64", (3, 13), "cuda")),
        (["--system", "macos", "--python", "3.11"], WINDOWS, install.Target("Darwin", "arm64", (3, 11), "cpu")),
        (["--system", "linux"], Machine("Linux", "aarch64"), install.Target("Linux", "aarch64", (3, 12), "cpu")),
    ],
)
def test_what_is_prepared_for(arguments, machine, target):
    assert install.target_of(arguments, machine) == target
    assert install.target_of(target.options.split(), machine) == target


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--system", "beos"], "--system beos is not"),
        (["--system"], "--system is not"),
        (["--python", "3.10"], "3.10"),
        (["--python", "three"], "--python three"),
        (["now"], "now is not understood"),
    ],
)
def test_what_cannot_be_prepared_for_is_a_sentence(arguments, word):
    with pytest.raises(SetupError, match=re.escape(word)):
        install.target_of(arguments, LINUX)


def test_a_folder_holds_what_its_target_needs():
    def names(target):
        return {install.name_and_version(pin) for pin in install.pins_for(target, PINS)}

    linux, windows = names(TARGET), names(install.Target("Windows", "AMD64", (3, 11), "cuda"))
    assert {"unsloth", "unsloth-zoo", "torch", "triton", "setuptools"} <= {name for name, _ in linux}
    assert {"triton-windows", "pywinpty", "colorama", "overrides"} <= {name for name, _ in windows}
    assert not {"triton", "pexpect", "appnope"} & {name for name, _ in windows}
    assert install.name_and_version(install.pinned(PINS.cuda, "torch")) in windows
    assert [name for name, _ in windows].count("torch") == 1


def fetches(target: install.Target, machine: Machine) -> list[Step]:
    return install.prepare_steps("PY", target, machine, PINS, "/w")


def test_for_the_same_machine_pip_chooses_the_files_itself():
    packages, torch = fetches(TARGET, LINUX)
    assert "--platform" not in packages.commands[0] and "--no-deps" in packages.commands[0]
    assert torch.commands[0][-1].endswith("+cpu") and "--no-deps" not in torch.otherwise.commands[0]
    assert fetches(install.Target("Linux", "x86_64", (3, 12), "cuda"), LINUX)[1].commands[0][-1] == "torch==2.11.0"


@pytest.mark.parametrize(("name", "platform"), [("windows", "win_amd64"), ("macos", "macosx_14_0_arm64")])
def test_for_another_system_pip_is_told_which(name, platform):
    packages, torch = fetches(install.Target(*install.SYSTEMS[name], (3, 13), "cpu"), LINUX)
    for (command,) in (packages.commands, torch.commands):
        assert command[command.index("--platform") + 1] == platform
        assert command[command.index("--python-version") + 1] == "3.13"
        assert "--no-deps" in command


def test_an_offline_set_up_asks_nothing_but_the_folder(tmp_path):
    a_wheel(tmp_path, "torch==2.13.0+cpu")
    for machine in (LINUX, WINDOWS, MAC, with_driver(LINUX)):
        steps = install.plan(machine, CREATE, PINS, "PY", FOLDER, tmp_path)
        assert steps[-1].commands == (("PY", "-m", "unsloth_course.lesson.smollm2", str(tmp_path)),)
        for step in steps:
            assert step.otherwise is None
            assert not any("uv" in command for command in step.commands)
            for command in step.commands:
                if "pip" in command:
                    assert {"--isolated", "--no-index"} < set(command)
                    assert command[command.index("--find-links") + 1] == str(tmp_path)


@pytest.fixture
def prepared(tmp_path):
    """A folder as `--prepare` leaves it, for three pins."""
    pins = Pins({"course": ("torch==2.13.0", "Al_pha==1.0")}, no_deps=("unsloth_zoo==3.1",))
    folder = tmp_path / "the wheels"
    files = [a_wheel(folder, pin) for pin in ("torch==2.13.0+cpu", "al-pha==1.0", "unsloth_zoo==3.1")]
    note = {"target": vars(TARGET), "files": {path.name: install._sha256(path) for path in files}}
    (folder / install.PREPARED).write_text(json.dumps(note))
    return folder, pins


def test_a_complete_folder_passes(prepared):
    install.check_prepared(prepared[0], TARGET, prepared[1])


def spoilt(folder: Path, how: str) -> None:
    wheel = next(folder.glob("al_pha*"))
    if how == "lost":
        wheel.unlink()
    if how == "damaged":
        wheel.write_bytes(wheel.read_bytes()[:-1])
    if how == "no note":
        (folder / install.PREPARED).unlink()
    if how == "half a note":
        (folder / install.PREPARED).write_text('{"target": ')


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("lost", ["is not complete", "al_pha-1.0-py3-none-any.whl", "Copy it anew"]),
        ("damaged", ["was damaged", "al_pha-1.0-py3-none-any.whl"]),
        ("no note", ["was not prepared", "--prepare 'the wheels' --system linux --python 3.12"]),
        ("half a note", ["was not prepared", "--prepare"]),
    ],
)
def test_an_incomplete_folder_is_a_sentence(prepared, how, words):
    folder, pins = prepared
    spoilt(folder, how)
    with pytest.raises(SetupError) as error:
        install.check_prepared(folder, TARGET, pins)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_folder_for_something_else_is_a_sentence(prepared):
    folder, pins = prepared
    other = install.Target("Linux", "x86_64", (3, 11), "cuda")
    with pytest.raises(SetupError, match=r"for Linux x86_64, Python 3\.12, torch for CPU; this is .*3\.11.*CUDA"):
        install.check_prepared(folder, other, pins)
    with pytest.raises(SetupError, match=r"if there is a Python 3\.12: python3\.12 unsloth_course/setup/install\.py"):
        install.check_prepared(folder, install.Target("Linux", "x86_64", (3, 13), "cpu"), pins)
    with pytest.raises(SetupError, match="other versions of the course: beta==2 lack"):
        install.check_prepared(folder, TARGET, Pins({"course": ("torch==2.13.0", "beta==2")}))


def test_on_windows_the_sentence_has_commands_of_windows(prepared):
    folder, pins = prepared
    note = json.loads((folder / install.PREPARED).read_text(encoding="utf-8"))
    note["target"] |= {"system": "Windows", "architecture": "AMD64"}
    (folder / install.PREPARED).write_text(json.dumps(note), encoding="utf-8")
    other = install.Target("Windows", "AMD64", (3, 13), "cpu")
    with pytest.raises(SetupError) as error:
        install.check_prepared(folder, other, pins)
    assert f"{install.WINDOWS_SCRIPT} --prepare" in str(error.value) and "./setup_venv" not in str(error.value)
    assert "py -3.12 unsloth_course/setup/install.py" in str(error.value)


def test_an_incomplete_folder_changes_nothing(course, prepared):
    root, commands = course
    with pytest.raises(SetupError, match="other versions"):
        install.set_up(root, lambda line: None, prepared[0])
    assert commands == [] and not (root / "venv").exists()


def test_offline_stands_before_the_rest(tmp_path):
    assert install.offline_folder(["--offline", str(tmp_path), "--run", "lora"]) == (tmp_path, ["--run", "lora"])
    assert install.offline_folder(["--test"]) == (None, ["--test"])
    absent = str(tmp_path / "no")
    for arguments, word in (
        (["--offline"], "needs the folder"),
        (["--offline", absent], f"There is no folder {absent}"),
    ):
        with pytest.raises(SetupError, match=re.escape(word)):
            install.offline_folder(arguments)


# --- pip's own settings: index, proxy, certificate


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on this machine, which is a proxy too; what was asked of it, and a course of three pins."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread
    from urllib.parse import urlsplit

    files, asked = tmp_path / "files", []
    for pin in ("torch==2.13.0+cpu", "alpha==1.0", "unsloth_zoo==3.1"):
        a_wheel(files, pin)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            path = urlsplit(self.path).path
            names = [file.name for file in files.iterdir()]
            if path.startswith("/simple/"):
                here = [name for name in names if name.startswith(path.split("/")[2].replace("-", "_") + "-")]
                body = "".join(f'<a href="/files/{name}">{name}</a>' for name in here).encode()
            else:
                body = (files / path.split("/")[2].replace("%2B", "+")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests takes them in place of pip's own setting
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(install, "working_python", lambda python: sys.version_info[:3])
    monkeypatch.setattr(install, "venv_python", lambda venv: Path(sys.executable))
    monkeypatch.setattr(install, "this_machine", lambda folder: Machine(python=sys.version_info[:3]))
    root = tmp_path / "course"
    root.mkdir()
    (root / "requirements.txt").write_text("# == course\ntorch==2.13.0\nalpha==1.0\n#no-deps unsloth_zoo==3.1\n")
    yield f"http://127.0.0.1:{server.server_port}", asked, root
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("way", ["environment", "file", "proxy"])
def test_pips_own_settings_decide_where_packages_come_from(index, way, monkeypatch, tmp_path):
    address, asked, root = index
    if way == "environment":
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
    if way == "file":
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {address}/simple\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    if way == "proxy":
        monkeypatch.setenv("PIP_INDEX_URL", "http://packages.invalid/simple")
        monkeypatch.setenv("PIP_TRUSTED_HOST", "packages.invalid")
        monkeypatch.setenv("PIP_PROXY", address)
    said = []
    target = install.prepare(root, tmp_path / "wheels", [], said.append)
    start = "http://packages.invalid" if way == "proxy" else ""
    assert f"{start}/simple/alpha/" in asked and len(asked) >= 6
    install.check_prepared(tmp_path / "wheels", target, install.read_pins((root / "requirements.txt").read_text()))
    assert "--offline wheels" in said[-1]


def test_a_certificate_that_is_not_there_is_named(index, monkeypatch, tmp_path):
    address, _, root = index
    monkeypatch.setenv("PIP_INDEX_URL", address.replace("http:", "https:") + "/simple")
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "no.pem"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    named = re.escape(f"There is no file {tmp_path / 'no.pem'}, which pip's settings")
    with pytest.raises(SetupError, match=named):
        install.prepare(root, tmp_path / "wheels", [], lambda line: None)
    assert not (tmp_path / "wheels" / install.PREPARED).exists()


def test_uv_is_told_what_pip_was_told():
    listing = ":env:.proxy='http://proxy:8080'\n:env:.cert='/c a.pem'\nglobal.index-url='http://i/simple'\n"
    listing += "global.proxy='http://old:1'\nglobal.timeout='60'\n"
    told = {"HTTPS_PROXY": "http://proxy:8080", "HTTP_PROXY": "http://proxy:8080", "SSL_CERT_FILE": "/c a.pem"}
    assert install.uv_settings({}, listing) == told | {"UV_HTTP_TIMEOUT": "60"}
    own = {"https_proxy": "http://mine", "SSL_CERT_FILE": "/mine", "HTTP_PROXY": "", "UV_HTTP_TIMEOUT": "5"}
    assert install.uv_settings(own, listing) == {}
    assert install.uv_settings({}, "") == {}


def test_only_uv_gets_another_environment(monkeypatch):
    monkeypatch.setenv("PIP_CERT", "/ours.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert install._environment_for((sys.executable, "-m", "pip", "install")) is None
    assert install._environment_for((sys.executable, "-m", "uv", "pip"))["SSL_CERT_FILE"] == "/ours.pem"


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ((r"C:\a b\python.exe", "-m", "pip"), r"& 'C:\a b\python.exe' -m pip"),
        (("python", "Python (unsloth-course)", "it's"), "python 'Python (unsloth-course)' 'it''s'"),
        ((r"C:\venv\python.exe", "torch==2.11.0"), r"C:\venv\python.exe torch==2.11.0"),
    ],
)
def test_commands_are_shown_as_powershell_takes_them(words, typed):
    assert install.shown(words, windows=True) == typed


# --- llama.cpp


@pytest.mark.parametrize(
    ("system", "environment", "folder"),
    [
        ("Linux", {}, "/home/me/.cache/unsloth-course"),
        ("Linux", {"XDG_CACHE_HOME": "/big"}, "/big/unsloth-course"),
        ("Darwin", {"XDG_CACHE_HOME": "/big"}, "/home/me/Library/Caches/unsloth-course"),
        ("Windows", {"LOCALAPPDATA": "/app"}, "/app/unsloth-course"),
        ("Windows", {}, "/home/me/AppData/Local/unsloth-course"),
    ],
)
def test_llama_cpp_is_kept_where_the_platform_keeps_such_things(system, environment, folder):
    assert install.cache_folder(system, environment, Path("/home/me")) == Path(folder)


def test_a_llama_cpp_of_the_learner_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    assert install.llama_cpp_folder() == tmp_path


def test_llama_cpp_is_configured_without_anything_that_it_would_download():
    configure, build = install.llama_cpp_steps(Path("/l"), "cmake", 2)
    assert {"-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF"} < set(configure.commands[0])
    assert build.commands[0][-3:] == ("--target", "llama-quantize", "llama-server")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A source archive, a pip that brings it and a CMake that builds by making files; the commands are noted."""
    import hashlib
    import tarfile

    tree = tmp_path / "llama_cpp_python-0.3.36"
    (tree / "vendor/llama.cpp").mkdir(parents=True)
    for name in ("vendor/llama.cpp/CMakeLists.txt", "vendor/llama.cpp/convert_hf_to_gguf.py", "setup.py"):
        (tree / name).write_text("")
    archive = tmp_path / "llama_cpp_python-0.3.36.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, tree.name)
    monkeypatch.setattr(install, "LLAMA_CPP_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    commands = []

    def run(command, root, doing):
        commands.append(command)
        if "download" in command:
            shutil.copy(archive, command[command.index("--dest") + 1])
        if "--build" in command:
            built = Path(command[2], "bin")
            built.mkdir(parents=True, exist_ok=True)
            for name in install.LLAMA_CPP_PROGRAMS:
                install.llama_cpp_program(built, name).write_text("")
        return 0, ""

    monkeypatch.setattr(install, "_run", run)
    return tmp_path / "cache" / "llama.cpp", commands


def test_llama_cpp_is_built_once(stand_in):
    folder, commands = stand_in
    said = []
    assert install.build_llama_cpp("PY", folder, said.append) == folder
    assert install.llama_cpp_missing(folder) == []
    assert [command[0] for command in commands] == ["PY", "/bin/cmake", "/bin/cmake"]
    assert not (folder / "setup.py").exists() and list(folder.parent.iterdir()) == [folder]
    install.build_llama_cpp("PY", folder, said.append)
    assert len(commands) == 3 and said[-1] == f"llama.cpp is in {folder}"


def test_a_build_that_fails_is_a_sentence_and_goes_on_without_a_second_download(stand_in, monkeypatch):
    folder, commands = stand_in
    run = install._run
    failed = (1, "CMake Error: No CMAKE_CXX_COMPILER could be found.")
    monkeypatch.setattr(install, "_run", lambda command, *rest: failed if "-S" in command else run(command, *rest))
    with pytest.raises(SetupError, match=r"(?s)Step 1 of 2, llama.cpp is configured, failed.*no C\+\+ compiler"):
        install.build_llama_cpp("PY", folder, lambda line: None)
    assert install.llama_cpp_missing(folder) == [p.name for p in map(folder.joinpath, install.LLAMA_CPP_PROGRAMS)]
    monkeypatch.setattr(install, "_run", run)
    install.build_llama_cpp("PY", folder, lambda line: None)
    assert sum("download" in command for command in commands) == 1


def test_a_build_that_is_stopped_leaves_nothing_that_looks_finished(stand_in, monkeypatch):
    folder, _ = stand_in
    run = install._run

    def stop(command, *rest):
        run(command, *rest)
        if "--build" in command or "download" in command:
            raise KeyboardInterrupt
        return 0, ""

    monkeypatch.setattr(install, "_run", stop)
    with pytest.raises(KeyboardInterrupt):  # while it downloads
        install.build_llama_cpp("PY", folder, lambda line: None)
    assert not folder.exists() and list(folder.parent.iterdir()) == []
    monkeypatch.setattr(install, "_run", lambda command, *rest: (stop if "--build" in command else run)(command, *rest))
    with pytest.raises(KeyboardInterrupt):  # while it builds
        install.build_llama_cpp("PY", folder, lambda line: None)
    assert len(install.llama_cpp_missing(folder)) == 2
    monkeypatch.setattr(install, "_run", run)
    install.build_llama_cpp("PY", folder, lambda line: None)
    assert install.llama_cpp_missing(folder) == []


def test_an_archive_that_was_not_tested_is_refused(stand_in, monkeypatch):
    folder, _ = stand_in
    monkeypatch.setattr(install, "LLAMA_CPP_SHA256", "0" * 64)
    with pytest.raises(SetupError, match="not the archive that was tested"):
        install.build_llama_cpp("PY", folder, lambda line: None)
    assert not folder.exists()


def test_a_missing_cmake_is_a_sentence(stand_in, monkeypatch):
    folder, commands = stand_in
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="CMake was not found"):
        install.build_llama_cpp("PY", folder, lambda line: None)
    assert commands == []


def test_a_folder_with_something_else_is_left_alone(stand_in):
    folder, _ = stand_in
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="Move it away"):
        install.build_llama_cpp("PY", folder, lambda line: None)
    assert (folder / "thesis.txt").exists()


def test_gguf_stands_alone():
    assert install.command_after(["--gguf"]) == []
    with pytest.raises(SetupError, match="stands alone"):
        install.command_after(["--gguf", "q8_0"])
