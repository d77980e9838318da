"""What is kept, installed and replaced in a session: versions in, decisions out."""

import sys

import pytest
from conftest import script
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.lesson.colab.decisions import KEPT, decide
from unsloth_course.lesson.colab.session import needs
from unsloth_course.setup import pins
from unsloth_course.setup.pins import Pins

PINS = Pins(
    {
        "course": ("torch==2.13.0", "transformers==5.17.0", "trl==1.15.0", "datasets==4.8.5", "numpy==2.4.6"),
        "unsloth": ('triton==3.7.1 ; sys_platform == "linux"', 'winonly==1.0 ; sys_platform == "win32"'),
        "pulled in by the packages above": ("pyarrow==26.0.1", "tokenizers==0.23.3", "fsspec==2026.2.0"),
        "tools": ("ruff==0.17.5",),
    },
    no_deps=("unsloth==2026.10.9",),
)
NEEDS = {
    "unsloth": ["torch<2.15.0,>=2.4.0", "trl<=1.15.0", "datasets!=4.0.*,<5", "transformers<=5.17.0", "certifi>=2099"],
    "datasets": ["pyarrow>=21.0.0", "numpy>=1.17", "fsspec[http]<=2026.2.0", 'mlx; sys_platform == "nowhere"'],
    "transformers": ["tokenizers<0.24,>=0.23.1"],
    "trl": ["datasets>=4.7", "an-extra>=1; extra == 'x'"],
}
COLAB = {
    "torch": "2.11.0+cu128",
    "numpy": "2.1.3",
    "triton": "3.6.0",
    "transformers": "5.15.0",
    "datasets": "4.0.0",
    "pyarrow": "18.1.0",
    "tokenizers": "0.22.2",
    "fsspec": "2025.3.0",
}
ASKS = {"transformers": ["tokenizers<=0.23.0,>=0.22.0"], "datasets": ["pyarrow>=15"], "torch": ["triton==3.6.0"]}


def decided(changes=(), asks=ASKS, loaded=(), **more):
    installed = {**COLAB, **dict(changes), **more}
    return decide({name: version for name, version in installed.items() if version}, asks, PINS, NEEDS, loaded)


def verdicts(decision):
    return {row.name: row.verdict for row in decision.rows}


def test_a_session_of_colab_keeps_what_is_accepted_and_gets_the_rest():
    found = decided()
    assert verdicts(found) == {
        "torch": "kept",
        "transformers": "kept",
        "trl": "installed",
        "datasets": "replaced",
        "numpy": "kept",
        "triton": "kept",
        "unsloth": "installed",
        "pyarrow": "replaced",
    }
    assert set(found.pins) == {"trl==1.15.0", "datasets==4.8.5", "unsloth==2026.10.9", "pyarrow==26.0.1"}
    assert not found.conflicts


def test_the_table_says_who_refuses_what():
    lines = {line.split()[0]: line for line in str(decided()).splitlines()}
    assert lines["package"].split() == ["package", "found", "tested", "verdict"]
    assert " asks for" in lines["datasets"] and "4.0.0" in lines["datasets"] and "replaced" in lines["datasets"]
    assert "datasets asks for >=21.0.0" in lines["pyarrow"]
    assert lines["transformers"].split() == ["transformers", "5.15.0", "5.17.0", "kept", "accepted"]
    assert lines["trl"].split()[:3] == ["trl", "-", "1.15.0"]


def test_the_second_time_all_is_kept():
    first = decided()
    after = COLAB | dict(pin.split("==") for pin in first.pins)
    again = decide(after, ASKS | NEEDS, PINS, NEEDS)
    assert again.pins == () and set(verdicts(again).values()) == {"kept"}


@pytest.mark.parametrize("name", KEPT[:2])
def test_torch_and_numpy_are_never_replaced(name):
    needs_ = NEEDS | {"unsloth": [f"{name}<1", *NEEDS["unsloth"]]}
    found = decide(COLAB, ASKS, PINS, needs_)
    assert [row.name for row in found.conflicts] == [name]
    assert not any(pin.startswith(name) for pin in found.pins)


@pytest.mark.parametrize(
    ("name", "version", "pin"),
    [
        ("triton", "", "triton==3.7.1"),
        ("unsloth", "2026.8.1", "unsloth==2026.10.9"),  # another than the tested one
        ("trl", "damaged", "trl==1.15.0"),
    ],
)
def test_what_is_missing_or_not_accepted_gets_the_tested_version(name, version, pin):
    found = decided(**{name: version})
    assert pin in found.pins and (not version or verdicts(found)[name] == "replaced")
    assert not any(pin.startswith("triton") for pin in decided(triton="2.0.0").pins), "one that is there stays"


def test_who_refuses_a_tested_version_goes_to_its_own_tested_version():
    """transformers 5.15 takes no tokenizers 0.23.1: where only that is there, transformers has to move."""
    found = decided(tokenizers="0.23.3")
    # tokenizers is no package of the course here, so nothing looks at it until transformers is taken
    assert verdicts(found)["transformers"] == "kept"
    pins = Pins({"course": (*PINS.sections["course"], "tokenizers==0.23.3"), **{"unsloth": ()}}, no_deps=PINS.no_deps)
    found = decide(COLAB | {"tokenizers": "0.23.3", "pyarrow": "26.0.1"}, ASKS, pins, NEEDS)
    assert verdicts(found)["transformers"] == "replaced" and verdicts(found)["tokenizers"] == "kept"
    assert not found.conflicts


def test_what_is_asked_for_and_has_no_tested_version_is_a_conflict():
    needs_ = NEEDS | {"trl": ["unheard-of"]}
    (row,) = decide(COLAB, ASKS, PINS, needs_).conflicts
    assert row.name == "unheard-of" and "no tested version" in row.why


def test_a_restart_is_due_only_for_what_is_loaded_and_replaced():
    assert decided(loaded={"datasets", "numpy", "transformers"}).loaded == ("datasets",)
    assert decided(loaded={"numpy", "torch"}).loaded == ()


@given(
    st.dictionaries(
        st.sampled_from(sorted(COLAB)), st.sampled_from(["", "0.1", "2.14.0", "4.8.5", "5.17.0", "26.0.1", "99"])
    )
)
def test_whatever_is_there_the_decision_holds_together(changes):
    found = decided(changes)
    taken = {pin.split("==")[0] for pin in found.pins}
    assert taken == {row.name for row in found.rows if row.verdict in ("installed", "replaced")} | (
        taken & {row.name for row in found.conflicts}
    )
    assert not {name for name in taken if name in KEPT and ({**COLAB, **changes})[name]}
    assert len({row.name for row in found.rows}) == len(found.rows)


def test_the_record_is_what_the_pinned_packages_ask_for():
    recorded, here = needs(), script("needs").gathered()
    if sys.platform == "linux":  # elsewhere other packages are pulled in
        assert recorded == here, "run python upkeep/needs.py"
    assert all(recorded[name] == asked for name, asked in here.items() if name in recorded)


def test_with_the_real_pins_colab_gets_all_that_a_lesson_imports():
    installed = {
        **{"torch": "2.11.0+cu128", "numpy": "2.1.3", "triton": "3.6.0", "transformers": "5.15.0", "peft": "0.20.0"},
        **{"accelerate": "1.14.0", "datasets": "4.0.0", "matplotlib": "3.10.0", "ipywidgets": "7.7.1"},
        **{"tokenizers": "0.22.2", "pyarrow": "18.1.0", "fsspec": "2025.3.0", "multiprocess": "0.70.16"},
    }
    found = decide(installed, {}, pins.tested(), needs())
    assert not found.conflicts
    seen = verdicts(found)
    assert seen["datasets"] == seen["pyarrow"] == "replaced"
    for name in ("torch", "numpy", "transformers", "peft", "accelerate", "matplotlib", "ipywidgets"):
        assert seen[name] == "kept", name
    assert "fsspec" not in seen  # asked for, accepted, and nobody's business
    (torch,) = [row for row in found.rows if row.name == "torch"]
    assert (torch.tested, torch.why) == ("2.11.0", "")  # the version that was tested with CUDA
    assert {"unsloth", "unsloth-zoo", "trl", "bitsandbytes"} <= {name for name in seen if seen[name] == "installed"}
