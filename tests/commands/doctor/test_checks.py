"""The doctor's checks: planted faults are found, each with what to do; a healthy machine and Colab pass."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.commands import doctor
from unsloth_course.commands.doctor import Check, Facts
from unsloth_course.setup.looking import GB
from unsloth_course.setup.pins import Pins

from .made import HEALTHY, TESTED


def sick(**changes) -> Facts:
    return replace(HEALTHY, **changes)


def with_version(name: str, version: str, **changes) -> Facts:
    return sick(installed=TESTED | {name: version}, **changes)


def without(*names: str, **changes) -> Facts:
    return sick(installed={name: version for name, version in TESTED.items() if name not in names}, **changes)


def failures(facts: Facts, profile: str = "cpu") -> dict[str, Check]:
    return {check.name: check for check in doctor.run_checks(facts, profile) if not check.ok}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_tested_set_is_healthy(profile):
    assert failures(HEALTHY, profile) == {}
    assert len(doctor.run_checks(HEALTHY, profile)) > 20


@pytest.mark.parametrize(
    ("name", "version", "word"),
    [
        ("transformers", "5.18.0", "<=5.17.0"),
        ("transformers", "4.56.0", "another major version"),
        ("trl", "1.16.0", "<=1.15.0"),
        ("trl", "0.24.0", "another major version"),
        ("torch", "2.15.0", "<2.15.0"),
        ("torch", "2.3.1", ">=2.4.0"),
        ("datasets", "4.0.0", "!=4.0.*"),
        ("datasets", "5.0.0", "<5.0.0"),
        ("unsloth-zoo", "2026.10.7", ">=2026.10.9"),
        ("peft", "garbage", "not a version"),
    ],
)
def test_a_wrong_version_fails_with_the_reason_and_what_to_do(name, version, word):
    failed = failures(with_version(name, version))
    assert list(failed) == [name]
    assert failed[name].found == version
    assert failed[name].tested == TESTED[name]
    assert word in failed[name].advice
    assert "./setup_venv.sh" in failed[name].advice


@pytest.mark.parametrize(
    ("name", "version", "note"),
    [
        ("peft", "0.21.3", "Unsloth accepts it"),
        ("transformers", "5.15.0", "Unsloth accepts it"),
        ("torch", "2.14.0", "Unsloth accepts it"),
        ("torch", "2.13.0+cpu", ""),
        ("ipywidgets", "7.7.1", "not tested"),
        ("matplotlib", "3.10.0", "not tested"),
    ],
)
def test_another_version_inside_the_limits_is_a_note(name, version, note):
    facts = with_version(name, version)
    assert failures(facts) == {}
    check = next(check for check in doctor.run_checks(facts, "cpu") if check.name == name)
    assert note in check.advice
    assert bool(note) == bool(check.advice)


def test_the_cuda_pin_is_the_tested_one_for_a_cuda_torch():
    facts = with_version("torch", "2.11.0+cu130", cuda_of_torch="13.0", nvidia_driver=True)
    check = next(check for check in doctor.run_checks(facts, "gpu") if check.name == "torch")
    assert (check.tested, check.ok, check.advice) == ("2.11.0", True, "")


@pytest.mark.parametrize("name", ["torch", "trl", "unsloth", "rich"])
def test_a_missing_package_fails(name):
    failed = failures(without(name))
    assert failed[name].found == "missing"


def test_outside_the_course_venv_the_advice_is_a_pip_command():
    failed = failures(with_version("datasets", "4.0.0", course_venv=False, executable="/usr/bin/python3"))
    assert f"/usr/bin/python3 -m pip install --no-deps datasets=={TESTED['datasets']}" in failed["datasets"].advice


@pytest.mark.parametrize("python", [(3, 10, 1), (3, 14, 0)])
def test_an_unsupported_python_fails(python):
    failed = failures(sick(python=python))
    assert "3.11-3.13" in failed["Python"].advice


@pytest.mark.parametrize(
    "facts",
    [
        without("nbmake", "ruff", course_venv=False),  # tools, where the course did not set up
        sick(nvidia_driver=True, environment={"UNSLOTH_FORCE_CPU": "1"}),  # the CPU was asked for
        with_version("torchvision", "0.28.0+cpu"),
        with_version("torchvision", "0.28.0", system="Darwin"),
        with_version("torchvision", "0.26.0", cuda_of_torch="13.0", nvidia_driver=True),
    ],
)
def test_what_fits_or_was_asked_for_is_fine(facts):
    assert failures(facts) == {}


@pytest.mark.parametrize(
    ("changes", "profile", "name", "word"),
    [
        ({"environment": {"UNSLOTH_DISABLE_CPU_FALLBACK": "1"}}, "cpu", "environment", "refuses"),
        ({"installed": TESTED | {"unsloth": "2026.10.7"}}, "cpu", "unsloth", "no CPU backend"),
        ({"free_bytes": 3 * GB}, "gpu", "free disk", "3.0 GB"),
        ({"hub_cache_writable": False}, "gpu", "Hub cache", "HF_HOME"),
    ],
)
def test_what_matters_to_one_profile_alone(changes, profile, name, word):
    failed = failures(sick(**changes), profile)
    assert list(failed) == [name] and word in failed[name].found + failed[name].advice
    assert failures(sick(**changes), "gpu" if profile == "cpu" else "cpu") == {}


def test_only_the_course_venv_has_a_set_up():
    assert "set-up" not in {check.name for check in doctor.run_checks(sick(course_venv=False), "cpu")}


@pytest.mark.parametrize(
    ("changes", "name", "command"),
    [
        ({"hub_cache_writable": False, "folder": r"C:\my course"}, "Hub cache", r"$env:HF_HOME = 'C:\my course"),
        ({"environment": {"UNSLOTH_ALLOW_CPU": "1"}}, "environment", "Remove-Item Env:UNSLOTH_ALLOW_CPU"),
        ({"shadows": {"trl": r"C:\my trl.py"}}, "nothing hides a package", r"Rename-Item 'C:\my trl.py'"),
        ({"twice": ("numpy",)}, "packages are whole", "Remove-Item -Recurse venv"),
        ({"installed": TESTED | {"trl": "1.16.0"}}, "trl", r".\setup_venv.ps1"),
        ({"kernel": ""}, "Jupyter kernel", "--display-name 'Python (unsloth-course)'"),
        ({"hub_broken": {"dataset a/b": "half"}}, "Hub downloads", "hf download --repo-type dataset a/b"),
        ({"hub_broken": {"dataset a/b": "half"}}, "Hub downloads", "Remove-Item -Recurse -Force"),
    ],
)
def test_windows_gets_commands_of_powershell(changes, name, command):
    assert command in failures(sick(system="Windows", **changes), "gpu")[name].advice


def test_colab_as_last_published_is_told_of_its_datasets_and_the_missing_trl():
    colab = {"torch": "2.11.0+cu128", "transformers": "5.15.0", "peft": "0.20.0", "accelerate": "1.14.0"}
    colab |= {"datasets": "4.0.0", "numpy": "2.1.3", "matplotlib": "3.10.0", "ipywidgets": "7.7.1"}
    facts = without("trl", course_venv=False, cuda_of_torch="12.8", nvidia_driver=True)
    facts = replace(facts, installed={**facts.installed, **colab})
    assert set(failures(facts, "gpu")) == {"datasets", "trl"}


def test_without_a_requirements_file_unsloths_limits_still_hold():
    facts = replace(with_version("trl", "1.16.0", course_venv=False), pins=Pins({}))
    assert list(failures(facts)) == ["trl"]
    assert doctor.run_checks(replace(HEALTHY, pins=Pins({})), "cpu")


@given(st.dictionaries(st.sampled_from(sorted(TESTED)), st.text(max_size=12)), st.sampled_from(["cpu", "gpu"]))
def test_any_versions_are_checked(installed, profile):
    for check in doctor.run_checks(sick(installed=installed), profile):
        assert check.ok or check.advice
