"""Which new version broke what: the search, with a made-up smoke in the place of a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import script
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.core.places import REPOSITORY

canary = script("canary")
NEW = {"peft": "0.22", "accelerate": "1.16", "rich": "16.0", "numpy": "2.5"}
NEW |= dict.fromkeys(("unsloth", "unsloth-zoo"), "2026.11")
WORKS = canary.Smoke(True)


def smoke(*bad):
    """A smoke that fails when all packages of one of the sets are new; it counts its calls."""
    calls = []

    def run(names):
        calls.append(tuple(names))
        hit = next((group for group in bad if set(group) <= set(names)), None)
        return WORKS if hit is None else canary.Smoke(False, f"{' and '.join(hit)} broke")

    run.calls = calls
    return run


def culprits(found):
    return [set(group) for group, _ in found.culprits]


def test_nothing_broken_takes_two_smokes():
    run = smoke()
    found = canary.search(NEW, run)
    assert found.ok and culprits(found) == [] and len(run.calls) == 2
    assert found.verdict("peft") == "works"


def test_one_package_is_named_with_its_last_words():
    found = canary.search(NEW, smoke(["peft"]))
    assert not found.ok and found.culprits == [(("peft",), "peft broke")]
    assert found.verdict("peft") == "breaks it: peft broke" and found.verdict("rich") == "works"
    assert "| peft | " in str(found) and "| 0.22 | breaks it: peft broke |" in str(found)


@pytest.mark.parametrize(
    "bad", [[["peft"], ["numpy"]], [["accelerate", "rich"]], [["peft"], ["accelerate", "rich"]]], ids=str
)
def test_all_that_break_it_are_found_alone_or_only_together(bad):
    found = canary.search(NEW, smoke(*bad))
    assert sorted(map(sorted, culprits(found))) == sorted(bad) and found.rest.ok
    if ["accelerate", "rich"] in bad:
        assert "together with rich" in found.verdict("accelerate")


def test_unsloth_and_its_zoo_are_tried_together():
    run = smoke(["unsloth-zoo"])
    assert culprits(canary.search(NEW, run)) == [{"unsloth", "unsloth-zoo"}]
    assert all(("unsloth" in call) == ("unsloth-zoo" in call) for call in run.calls)


def test_a_broken_control_ends_the_search():
    run = smoke([])
    found = canary.search(NEW, run)
    assert not found.ok and len(run.calls) == 1 and "fail themselves" in str(found)


def test_without_new_versions_only_control_runs():
    run = smoke()
    found = canary.search({}, run)
    assert found.ok and run.calls == [()] and "newest that are allowed" in str(found)


@given(st.sets(st.integers(0, 11), min_size=1, max_size=4))
def test_the_smallest_failing_set_is_found_whatever_it_is(bad):
    units = [(f"p{number}",) for number in range(12)]
    wanted = [(f"p{number}",) for number in sorted(bad)]
    assert sorted(canary.smallest(units, lambda some: set(wanted) <= set(some))) == sorted(wanted)


@pytest.mark.parametrize(
    ("asked", "new"),
    [([], "5.1"), (["<5"], "4.9"), (["<5", "!=4.9.*"], "4.8.5"), (["", "<=4.8.5,>=3"], "4.8.5"), (["<1"], None)],
)
def test_the_newest_that_all_allow(asked, new):
    assert canary.newest(["6.0rc1", "5.1", "4.9", "4.8.5", "not-a-version"], asked) == new


def test_candidates_are_newer_than_the_pins_and_within_the_caps():
    index = {"trl": ["1.16.0", "1.15.0"], "datasets": ["5.0", "4.9", "4.8.5"], "rich": ["16.0", "15.0"], "peft": []}
    pinned = {"trl": "1.15.0", "datasets": "4.8.5", "rich": "15.0", "peft": "0.21"}
    asks = {"unsloth": ["trl<=1.15.0", "datasets<5", 'rich<16; sys_platform == "nowhere"'], "x": ["numpy"]}
    assert canary.candidates(pinned, index.get, asks) == {"datasets": "4.9", "rich": "16.0"}
    assert canary.candidates(pinned, index.get, {})["trl"] == "1.16.0"


def test_torch_and_what_belongs_to_it_stays():
    names = canary.pinned_versions()
    assert {"torch", "triton", "certifi"}.isdisjoint(names)
    assert {"trl", "peft", "unsloth", "unsloth-zoo", "numpy"} <= names.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nE   ImportError: cannot import name 'x'\nother", "ImportError: cannot import name 'x'"),
        ("\x1b[31mValueError: a | b\x1b[0m\n=== 1 failed ===", "ValueError: a / b"),
        ("just this", "just this"),
        ("", "it said nothing"),
    ],
)
def test_the_last_words_are_the_error(text, said):
    assert canary.last_words(text) == said


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """The runner with its layers made by hand and no lesson."""
    monkeypatch.chdir(tmp_path)
    run = canary.Runner({"a": "2", "b": "3"}, Path("out"))
    seen = []

    def ran(command, **more):
        seen.append(more["env"]["PYTHONPATH"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(
        canary, "_pip", lambda *arguments: subprocess.CompletedProcess(arguments, run.fails, "", "ERROR: no")
    )
    monkeypatch.setattr(canary.subprocess, "run", ran)
    run.fails = 0
    return run, seen


def test_new_versions_lie_in_front_and_a_set_is_smoked_once(quick, tmp_path):
    run, seen = quick
    assert run(("a", "b")).ok and run(("b", "a")).ok
    assert len(seen) == 2  # the import, and the lesson
    layers = [str(tmp_path / "out" / "layers" / name) for name in ("a-2", "b-3")]
    assert seen == [os.pathsep.join(layers)] * 2  # whole paths: a kernel begins in another folder


def test_a_version_that_cannot_be_had_is_told(quick):
    run, seen = quick
    run.fails = 1
    assert run(("a",)) == canary.Smoke(False, "ERROR: no") and seen == []


def test_the_script_explains_itself():
    done = subprocess.run(
        [sys.executable, "upkeep/canary.py", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Control and canary" in done.stdout
