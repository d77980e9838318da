"""What the doctor looks at, on this machine."""

from pathlib import Path

from unsloth_course.commands import doctor
from unsloth_course.commands.doctor import Check, facts
from unsloth_course.setup import pins
from unsloth_course.setup.pins import Pins


def test_the_hub_cache_is_where_huggingface_hub_looks():
    home = Path("/home/me")
    assert facts.hub_cache({}, home) == home / ".cache/huggingface/hub"
    assert facts.hub_cache({"XDG_CACHE_HOME": "/x"}, home) == Path("/x/huggingface/hub")
    assert facts.hub_cache({"HF_HOME": "/hf", "XDG_CACHE_HOME": "/x"}, home) == Path("/hf/hub")
    assert facts.hub_cache({"HF_HUB_CACHE": "/cache", "HF_HOME": "/hf"}, home) == Path("/cache")


def test_unsloths_limits_are_read_from_its_metadata():
    limits = facts.limits_of(facts.installed_and_needs(["unsloth", "unsloth-zoo"])[1])
    assert {"torch", "transformers", "trl", "datasets"} <= set(limits)
    assert "certifi" not in limits


def test_this_machine_can_be_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "yet"))
    (tmp_path / "not" / "yet" / "hub" / "models--a--b").mkdir(parents=True)
    found = doctor.gather(tmp_path / "results" / "not yet")
    assert found.hub_repositories == 1
    assert found.free_bytes > 0
    assert found.installed["rich"]
    assert all(isinstance(check, Check) for check in doctor.run_checks(found, "cpu"))


def test_a_copy_of_the_pins_inside_the_package_is_enough(tmp_path, monkeypatch):
    """In Colab the package travels without the repository."""
    monkeypatch.setattr(pins, "ROOT", tmp_path)
    assert pins.tested() == Pins({})
    (tmp_path / "unsloth_course").mkdir()
    (tmp_path / "unsloth_course" / "requirements.txt").write_text("# == course\ntorch==2.13.0\n")
    assert pins.tested().all == ("torch==2.13.0",)
