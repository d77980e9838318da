"""The doctor on machines made to be ill: real folders, files, variables and limits, asked by a process of its own.

A machine is a small virtual environment whose packages are metadata copied from the tested ones, with a stand-in torch
and numpy. Where the advice can be followed without a network it is: its commands run in a shell, and the doctor is
asked again.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
from conftest import script
from setup.made import a_wheel

from unsloth_course.lesson.profile import HUB_MODEL
from unsloth_course.setup import looking
from unsloth_course.setup.deciding import KERNEL
from unsloth_course.setup.pins import ROOT, applies, versions_of

from .made import PINS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the planted machines are Linux")

TESTED = versions_of(pin for pin in (*PINS.all, *PINS.no_deps) if applies(pin, "Linux", sys.version_info))
ASKING = ("unsloth", "unsloth-zoo", "transformers", "trl", "peft", "datasets", "accelerate", "torch")
# What the doctor itself imports; linked in, without metadata.
TOOLS = ("rich", "typer", "click", "packaging", "psutil", "pygments", "markdown_it", "mdurl", "shellingham", "pip")
TOOLS += ("annotated_doc", "annotated_types", "typing_extensions.py", "typing_inspection", "pydantic", "pydantic_core")
TORCH = """\
class cuda:
    is_available = staticmethod(lambda: {works})
    get_device_name = staticmethod(lambda: "Stand-in")
    get_device_capability = staticmethod(lambda: (7, 5))
    get_device_properties = staticmethod(lambda _: type("Card", (), {{"total_memory": 16 * 1024**3}}))
def from_numpy(array):
    {numpy}
"""


# What the command line does, without the time to import it.
DOCTOR = (
    "import sys; from unsloth_course.commands import doctor; it = doctor.examine(); "
    "print(it.to_json()); sys.exit(not it.ok)"
)


@dataclass
class PlantedMachine:
    """A machine in `root`: its Python, home, working folder and variables; `find` asks the doctor."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    limit: int = 0
    place: str = "work"

    @property
    def python(self) -> Path:
        return self.root / "venv/bin/python"

    @property
    def packages(self) -> Path:
        return next(self.root.glob("venv/lib/python3.*/site-packages"))

    @property
    def work(self) -> Path:
        return self.root / self.place

    @property
    def cache(self) -> Path:
        return self.root / "home/.cache/huggingface/hub"

    def file(self, path: str, text: str = "") -> Path:
        """A file below `root`."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return place

    def package(self, name: str, version: str, metadata_text: str = "") -> Path:
        """The metadata of an installed package, in place of another version of it."""
        self.remove(name)
        info = self.packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata_text}")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text("".join(f"{info.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD")))
        return info

    def remove(self, name: str) -> None:
        for info in self.packages.glob(f"{name.replace('-', '_')}-*.dist-info"):
            shutil.rmtree(info)

    def torch(self, version: str, cuda: str | None = None, works: bool = False, numpy: str = "return array") -> None:
        self.package("torch", version)
        folder = self.packages / "torch"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(TORCH.format(works=works, numpy=numpy))
        (folder / "version.py").write_text(f"__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\n")

    def driver(self) -> None:
        """A driver that answers: an nvidia-smi on the PATH."""
        program = self.file("bin/nvidia-smi", "#!/bin/sh\necho 'GPU 0: Stand-in (UUID: GPU-0)'\n")
        program.chmod(0o755)
        self.environment.pop("UNSLOTH_FORCE_CPU", None)

    def card(self) -> None:
        """A driver, a CUDA torch and a card that works: the gpu profile."""
        self.driver()
        self.torch("2.11.0+cu130", "13.0", works=True)
        self.package("triton", "3.6.0")

    def download(self, name: str, lacking: str = "") -> Path:
        """A model in the Hub cache; returns its folder."""
        blobs = f"home/.cache/huggingface/hub/models--{name.replace('/', '--')}"
        self.file(f"{blobs}/blobs/config", "{}")
        self.file(f"{blobs}/blobs/weights", "weights")
        self.file(f"{blobs}/refs/main", "c0ffee")
        snapshot = self.root / blobs / "snapshots/c0ffee"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").symlink_to("../../blobs/config")
        (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
        if lacking:
            (self.root / blobs / "blobs" / lacking).unlink()
        return self.root / blobs

    def ready_to_set_up(self, folder: str = "") -> None:
        """What the set-up leaves in its venv."""
        venv = self.root / "venv"
        stamp = {"folder": folder or str(venv), "fingerprint": "0123"}
        self.file(f"venv/{looking.STAMP}", json.dumps(stamp))
        kernel = {"argv": [str(self.python), "-m", "ipykernel_launcher"]}
        self.file(f"venv/share/jupyter/kernels/{KERNEL}/kernel.json", json.dumps(kernel))

    def ask(self, *before: str, program: str = f'-c "{DOCTOR}"') -> subprocess.CompletedProcess:
        """Runs commands in a shell and then, in the same one, the doctor."""
        script = "\n".join([*before, f'exec "{self.python}" {program}'])
        basic = {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "HOME": str(self.root / "home"), "LC_ALL": "C.UTF-8"}
        basic |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.root / "wheels"), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            ["sh", "-ec", script],
            cwd=self.work,
            env=basic | self.environment,
            capture_output=True,
            text=True,
            preexec_fn=self._limited,
            check=False,
        )

    def _limited(self) -> None:
        import resource

        if self.limit:
            resource.setrlimit(resource.RLIMIT_AS, (self.limit, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def find(self) -> dict[str, dict]:
        """The failed checks by name."""
        answer = self.ask()
        assert answer.stdout.startswith("{"), answer.stderr
        failed = {check["name"]: check for check in json.loads(answer.stdout)["checks"] if not check["ok"]}
        assert answer.returncode == bool(failed)
        return failed


def commands(advice: str) -> list[str]:
    return [line.strip() for line in advice.splitlines() if line.startswith("    ")]


def asked_by(name: str) -> str:
    """What a package really asks of others, as its metadata says it."""
    return "".join(f"Requires-Dist: {line}\n" for line in script("needs").asked_by(name))


@pytest.fixture(scope="module")
def healthy_machine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("machine")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", root / "venv"], check=True)
    for folder in ("bin", "work", "tools", "home", "wheels"):
        (root / folder).mkdir()
    here = Path(metadata.distribution("rich").locate_file(""))
    for name in filter(lambda name: (here / name).exists(), TOOLS):
        (root / "tools" / name).symlink_to(here / name)
    (root / "tools" / "unsloth_course").symlink_to(ROOT / "unsloth_course")
    made = PlantedMachine(root)
    for name, version in TESTED.items():
        made.package(name, version, asked_by(name) if name in ASKING else "")
    made.file(f"{made.packages.relative_to(root)}/numpy/__init__.py", "def zeros(size):\n    return [0] * size\n")
    made.file(f"{made.packages.relative_to(root)}/numpy/version.py", f"version = {TESTED['numpy']!r}\n")
    made.torch(f"{TESTED['torch']}+cpu")
    return root


@pytest.fixture
def machine(healthy_machine, tmp_path) -> PlantedMachine:
    root = tmp_path / "machine"
    shutil.copytree(healthy_machine, root, symlinks=True)
    made = PlantedMachine(root)
    (made.packages / "tools.pth").write_text(f"{root / 'tools'}\n")
    if looking.nvidia_driver():  # of the machine that the tests run on
        made.environment["UNSLOTH_FORCE_CPU"] = "1"
    return made


def wheel(machine: PlantedMachine, name: str) -> None:
    """The tested version of a package, as a wheel that an index could offer."""
    a_wheel(machine.root / "wheels", f"{name}=={TESTED[name]}")


@pytest.mark.parametrize("plant", ["nothing", "card", "set_up"])
def test_a_healthy_machine_has_no_fault(machine, plant):
    machine.download(HUB_MODEL)
    (machine.work / "datasets").mkdir()  # a folder without a module hides nothing
    if plant == "card":
        machine.card()
        machine.environment["HF_HUB_OFFLINE"] = "1"
    if plant == "set_up":
        machine.ready_to_set_up()
    assert machine.find() == {}


def test_the_command_says_the_same(machine):
    told = machine.ask(program="-m unsloth_course doctor")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (0, "All is well.")
    older("trl", "1.16.0")(machine)
    hidden(machine)
    told = machine.ask(program="-m unsloth_course doctor")
    lines = told.stdout.splitlines()
    assert told.returncode == 1 and lines[-1].endswith("checks failed: trl, nothing hides a package.")
    assert all(len(line) <= 80 for line in lines if line.startswith("       ") and not line.startswith("           "))


def older(name: str, version: str):
    def plant(machine: PlantedMachine) -> None:
        machine.package(name, version, asked_by(name) if name in ASKING else "")
        wheel(machine, name)

    return plant


def missing(name: str):
    def plant(machine: PlantedMachine) -> None:
        machine.remove(name)
        wheel(machine, name)

    return plant


def variables(**values: str):
    return lambda machine: machine.environment.update(values)


def torchvision(machine: PlantedMachine, version: str = "0.28.0", torch: str = "2.13.0") -> None:
    machine.package("torchvision", version, f"Requires-Dist: torch=={torch}\n")


def mlx(machine: PlantedMachine) -> None:
    machine.package("mlx", "0.30.0")
    code = 'import platform\nplatform.system = lambda: "Darwin"\nplatform.machine = lambda: "arm64"\n'
    code += 'platform.mac_ver = lambda: ("14.0", ("", "", ""), "arm64")\n'  # newer versions of pip read it
    (machine.packages / "sitecustomize.py").write_text(code)


def mixed(machine: PlantedMachine) -> None:
    (machine.packages / "numpy/version.py").write_text('version = "1.26.4"\n')


def half_a_package(machine: PlantedMachine) -> None:
    info = machine.package("peft", TESTED["peft"])
    (info / "RECORD").unlink()
    (info / "INSTALLER").unlink()
    wheel(machine, "peft")


def hidden(machine: PlantedMachine) -> None:
    machine.file("work/trl/__init__.py")
    machine.file("work/datasets.py")


def hidden_card(machine: PlantedMachine) -> None:
    machine.card()
    machine.torch("2.11.0+cu130", "13.0", works=False)
    machine.environment["CUDA_VISIBLE_DEVICES"] = ""
    # As CUDA does: without the variable, the card is there.
    init = machine.packages / "torch/__init__.py"
    visible = 'lambda: "CUDA_VISIBLE_DEVICES" not in __import__("os").environ'
    init.write_text(init.read_text().replace("lambda: False", visible))


def offline(machine: PlantedMachine) -> None:
    machine.card()
    machine.environment["HF_HUB_OFFLINE"] = "1"


@pytest.mark.parametrize(
    ("plant", "name", "word"),
    [
        (older("trl", "1.16.0"), "trl", "<=1.15.0"),
        (older("unsloth", "2026.10.7"), "unsloth", "no CPU backend"),
        (older("ipywidgets", "7.6.5"), "ipywidgets", "7.7.1"),
        (missing("bitsandbytes"), "packages Unsloth imports", "bitsandbytes"),
        (older("fsspec", "2020.1.0"), "packages fit together", "fsspec"),
        (half_a_package, "packages are whole", "peft"),
        (torchvision, "torchvision", "built for CUDA"),
        (lambda m: torchvision(m, "0.26.0+cpu", "2.11.0"), "torchvision", "built for torch==2.11.0"),
        (mlx, "mlx", "stubs"),
        (hidden, "nothing hides a package", "rename it"),
        (variables(UNSLOTH_ALLOW_CPU="1"), "environment", "pretend"),
        (variables(UNSLOTH_DISABLE_CPU_FALLBACK="1"), "environment", "refuses"),
        (variables(OMP_NUM_THREADS="512"), "threads", "512 threads"),
        (variables(OMP_NUM_THREADS="none"), "threads", "none"),
        (variables(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"), "text encoding", "PYTHONUTF8=1"),
        (lambda m: setattr(m, "limit", 1_500_000_000), "memory", "2 GB"),
        (hidden_card, "torch build", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_fault_is_named_and_its_advice_mends_it(machine, plant, name, word):
    plant(machine)
    failed = machine.find()
    assert list(failed) == [name]
    advice = failed[name]["advice"]
    assert word in advice + failed[name]["found"]
    answer = machine.ask(*(f"{command} >&2" for command in commands(advice)))
    assert commands(advice) and answer.returncode == 0, answer.stderr + answer.stdout


def full_disk(machine: PlantedMachine) -> None:
    code = "import os\nreal = os.statvfs\n"
    code += "os.statvfs = lambda path: os.statvfs_result([*real(path)[:3], 9, 9, *real(path)[5:]])\n"
    (machine.packages / "sitecustomize.py").write_text(code)


def unwritable_cache(machine: PlantedMachine) -> None:
    machine.card()
    machine.environment["HF_HOME"] = "/proc/cache"


def broken_shards(machine: PlantedMachine) -> None:
    folder = machine.download("some/model") / "snapshots/c0ffee"
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def stopped_download(machine: PlantedMachine) -> None:
    (machine.download("some/model") / "blobs/abc.incomplete").write_bytes(b"0" * 2_500_000)


def torch_that_does_not_load(machine: PlantedMachine) -> None:
    (machine.packages / "torch/__init__.py").write_text('raise OSError("libcudart.so.13: cannot open shared object")')


def no_kernel(machine: PlantedMachine) -> None:
    machine.ready_to_set_up()
    shutil.rmtree(machine.root / "venv/share")


def kernel_of_another(machine: PlantedMachine) -> None:
    machine.ready_to_set_up()
    kernel = {"argv": ["/usr/bin/python3", "-m", "ipykernel_launcher"]}
    machine.file(f"venv/share/jupyter/kernels/{KERNEL}/kernel.json", json.dumps(kernel))


def stopped_set_up(machine: PlantedMachine) -> None:
    machine.ready_to_set_up()
    machine.file(f"venv/{looking.STAMP}", json.dumps({"folder": str(machine.root / "venv"), "fingerprint": None}))


def no_tool(machine: PlantedMachine) -> None:
    machine.ready_to_set_up()
    machine.remove("nbmake")


def old_driver(machine: PlantedMachine) -> None:
    machine.card()
    machine.torch("2.11.0+cu130", "13.0", works=False)


def unwritable_folder(machine: PlantedMachine) -> None:
    machine.place = "/proc/sys"  # which refuses root, too


@pytest.mark.parametrize(
    ("plant", "names", "words"),
    [
        (PlantedMachine.driver, ["torch build"], ["is a CPU build", "--torch-backend auto"]),
        (old_driver, ["torch build"], ["which torch cannot use", "CUDA 13.0 or newer"]),
        (no_tool, ["Jupyter and tests"], ["missing: nbmake", "./setup_venv.sh"]),
        (unwritable_folder, ["free disk"], ["nothing can be written in /proc/sys", "work in a folder of your own"]),
        (full_disk, ["free disk"], ["0.0 GB", "cache purge"]),
        (unwritable_cache, ["Hub cache"], ["HF_HOME"]),
        (offline, ["Hub cache"], ["HF_HUB_OFFLINE forbids", HUB_MODEL, "unset HF_HUB_OFFLINE"]),
        (stopped_download, ["Hub downloads"], ["1 unfinished file of 2.5 MB", "hf download some/model"]),
        (lambda m: m.download("some/model", "weights"), ["Hub downloads"], ["missing: model.safetensors"]),
        (broken_shards, ["Hub downloads"], ["missing: model-2.safetensors"]),
        (torch_that_does_not_load, ["profile"], ["libcudart.so.13", "install --no-deps torch==2.13.0"]),
        (lambda m: m.torch("2.13.0+cpu", numpy='raise OSError("no numpy")'), ["torch and numpy"], ["no numpy"]),
        (mixed, ["packages are whole"], ["its files say 1.26.4", "--ignore-installed numpy=="]),
        (lambda m: m.ready_to_set_up("/elsewhere/venv"), ["set-up"], ["made in /elsewhere/venv", "./setup_venv.sh"]),
        (stopped_set_up, ["set-up"], ["half-way", "./setup_venv.sh"]),
        (no_kernel, ["Jupyter kernel"], ["not registered", "ipykernel install --prefix"]),
        (kernel_of_another, ["Jupyter kernel"], ["starts /usr/bin/python3"]),
    ],
)
def test_a_fault_is_named_with_what_to_do(machine, plant, names, words):
    plant(machine)
    failed = machine.find()
    assert list(failed) == names
    said = "\n".join(f"{check['found']}\n{check['advice']}" for check in failed.values())
    assert [word for word in words if word not in said] == []
    assert plant is unwritable_folder or all(commands(check["advice"]) for check in failed.values())


def test_a_package_that_is_there_twice_is_named(machine):
    machine.package("numpy", "1.26.4").rename(machine.root / "aside")
    machine.package("numpy", TESTED["numpy"])
    (machine.root / "aside").rename(machine.packages / "numpy-1.26.4.dist-info")
    failed = machine.find()
    assert "packages are whole" in failed and "there twice" in failed["packages are whole"]["found"]


def test_deleting_a_half_download_leaves_the_whole_ones(machine):
    broken_shards(machine)
    whole = machine.download("another/model")
    shutil.rmtree(whole / "refs")  # as after a download by its commit
    (failed,) = machine.find().values()
    *_, delete = commands(failed["advice"])
    subprocess.run(["sh", "-c", delete], check=True)
    assert machine.find() == {}
    assert (whole / "snapshots/c0ffee/model.safetensors").read_text() == "weights"
