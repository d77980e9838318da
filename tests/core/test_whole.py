"""Which checkpoint is whole, told from its files alone."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course.core import whole
from unsloth_course.core.errors import CourseError


def written(folder, step, finished=False):
    """A checkpoint as `train` leaves it, of three small files."""
    checkpoint = Path(folder) / f"checkpoint-{step}"
    (checkpoint / "ref").mkdir(parents=True)
    for name in ("optimizer.pt", "trainer_state.json", "ref/adapter_model.safetensors"):
        (checkpoint / name).write_bytes(f"{name} of step {step}".encode())
    whole.write_manifest(checkpoint, finished)
    return checkpoint


@pytest.fixture
def said():
    return []


def test_the_newest_whole_checkpoint_is_found_where_there_is_one(tmp_path, said):
    assert whole.last_good(tmp_path, said.append) is None is whole.last_good(tmp_path / "absent", said.append)
    for step in (10, 9, 100):
        written(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-200").touch()  # no folder
    assert whole.last_good(tmp_path, said.append) == tmp_path / "checkpoint-100"
    assert said == []


@pytest.mark.parametrize(
    ("harm", "why", "name"),
    [
        (lambda c: (c / "manifest.json").unlink(), "cut off while it was written", "unfinished-checkpoint-20"),
        (lambda c: (c / "optimizer.pt").unlink(), "optimizer.pt is missing", "damaged-checkpoint-20"),
        (lambda c: shutil.rmtree(c / "ref"), "ref/adapter_model.safetensors is missing", "damaged-checkpoint-20"),
        (lambda c: (c / "optimizer.pt").write_bytes(b"opt"), "3 bytes in place of 23", "damaged-checkpoint-20"),
        (lambda c: (c / "manifest.json").write_text("{"), "manifest.json cannot be read", "damaged-checkpoint-20"),
        (lambda c: (c / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be read", "damaged-checkpoint-20"),
    ],
)
def test_one_that_is_not_whole_is_passed_over_and_kept(harm, why, name, tmp_path, said):
    older, newest = written(tmp_path, 10), written(tmp_path, 20)
    harm(newest)
    assert whole.last_good(tmp_path, said.append) == older
    (sentence,) = said
    assert why in sentence and name in sentence and "checkpoint-10 is whole and used instead" in sentence
    assert not newest.exists() and (tmp_path / name).is_dir()
    assert whole.last_good(tmp_path, said.append) == older and len(said) == 1, "said once"


def test_when_none_is_whole_the_sentence_says_so(tmp_path, said):
    for step in (10, 20):
        (written(tmp_path, step) / "optimizer.pt").unlink()
    assert whole.last_good(tmp_path, said.append) is None
    assert "checkpoint-20 is passed over" in said[0] and "checkpoint-10 is passed over" in said[0]
    assert "the run starts anew" in said[0]


def test_damaged_ones_are_all_kept_and_of_unfinished_ones_the_last(tmp_path, said):
    for _ in range(3):
        (written(tmp_path, 10) / "optimizer.pt").unlink()
        (written(tmp_path, 11) / "manifest.json").unlink()
        whole.last_good(tmp_path, said.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged-checkpoint-10",
        "damaged-checkpoint-10-2",
        "damaged-checkpoint-10-3",
        "unfinished-checkpoint-11",
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(manifest=st.binary(max_size=40) | json_values.map(lambda value: json.dumps({"files": value}).encode()))
def test_no_manifest_gives_a_traceback_or_passes_for_another(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    checkpoint = written(folder, 5)
    (checkpoint / "manifest.json").write_bytes(manifest)
    assert whole.last_good(folder, lambda sentence: None) is None


def test_a_folder_that_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    (written(tmp_path, 10) / "optimizer.pt").unlink()

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(CourseError, match="cannot be used \\(Permission denied\\)"):
        whole.last_good(tmp_path)


def test_a_run_that_starts_anew_does_not_mix_with_an_old_one(tmp_path):
    whole.require_none(tmp_path / "gone")
    whole.require_none(tmp_path)
    written(tmp_path, 5)
    with pytest.raises(CourseError, match=r"holds checkpoint-5 of an earlier run\. Add --resume"):
        whole.require_none(tmp_path)
    (tmp_path / "damaged-checkpoint-4").mkdir()
    (tmp_path / "README.md").touch()
    whole.discard(tmp_path)
    whole.require_none(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged-checkpoint-4"]
    (tmp_path / "damaged-checkpoint-4").rmdir()
    whole.discard(tmp_path)
    assert not tmp_path.exists()
    whole.discard(tmp_path)
