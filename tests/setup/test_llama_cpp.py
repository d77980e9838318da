"""llama.cpp is built once, from an archive that is known by its hash."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import pytest

from unsloth_course.setup import doing, llama_cpp
from unsloth_course.setup.doing import SetupError


def test_a_llama_cpp_of_the_learner_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    assert llama_cpp.home() == tmp_path


def test_llama_cpp_is_configured_without_anything_that_it_would_download():
    configure, build = llama_cpp.steps(Path("/l"), "cmake", 2)
    assert {"-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF"} < set(configure.commands[0])
    assert build.commands[0][-3:] == ("--target", "llama-quantize", "llama-server")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A source archive, a pip that brings it and a CMake that builds by making files; the commands are noted."""
    tree = tmp_path / "llama_cpp_python-0.3.36"
    (tree / "vendor/llama.cpp").mkdir(parents=True)
    for name in ("vendor/llama.cpp/CMakeLists.txt", "vendor/llama.cpp/convert_hf_to_gguf.py", "setup.py"):
        (tree / name).write_text("")
    archive = tmp_path / "llama_cpp_python-0.3.36.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, tree.name)
    monkeypatch.setattr(llama_cpp, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    commands = []

    def run(command, root, doing):
        commands.append(command)
        if "download" in command:
            shutil.copy(archive, command[command.index("--dest") + 1])
        if "--build" in command:
            built = Path(command[2], "bin")
            built.mkdir(parents=True, exist_ok=True)
            for name in llama_cpp.PROGRAMS:
                llama_cpp.program(built, name).write_text("")
        return 0, ""

    monkeypatch.setattr(doing, "_run", run)
    return tmp_path / "cache" / "llama.cpp", commands


def test_llama_cpp_is_built_once(stand_in):
    folder, commands = stand_in
    said = []
    assert llama_cpp.build("PY", folder, said.append) == folder
    assert llama_cpp.missing(folder) == []
    assert [command[0] for command in commands] == ["PY", "/bin/cmake", "/bin/cmake"]
    assert not (folder / "setup.py").exists() and list(folder.parent.iterdir()) == [folder]
    llama_cpp.build("PY", folder, said.append)
    assert len(commands) == 3 and said[-1] == f"llama.cpp is in {folder}"


def test_a_build_that_fails_is_a_sentence_and_goes_on_without_a_second_download(stand_in, monkeypatch):
    folder, commands = stand_in
    run = doing._run
    failed = (1, "CMake Error: No CMAKE_CXX_COMPILER could be found.")
    monkeypatch.setattr(doing, "_run", lambda command, *rest: failed if "-S" in command else run(command, *rest))
    with pytest.raises(SetupError, match=r"(?s)Step 1 of 2, llama.cpp is configured, failed.*no C\+\+ compiler"):
        llama_cpp.build("PY", folder, lambda line: None)
    assert llama_cpp.missing(folder) == [p.name for p in map(folder.joinpath, llama_cpp.PROGRAMS)]
    monkeypatch.setattr(doing, "_run", run)
    llama_cpp.build("PY", folder, lambda line: None)
    assert sum("download" in command for command in commands) == 1


def test_a_build_that_is_stopped_leaves_nothing_that_looks_finished(stand_in, monkeypatch):
    folder, _ = stand_in
    run = doing._run

    def stop(command, *rest):
        run(command, *rest)
        if "--build" in command or "download" in command:
            raise KeyboardInterrupt
        return 0, ""

    monkeypatch.setattr(doing, "_run", stop)
    with pytest.raises(KeyboardInterrupt):  # while it downloads
        llama_cpp.build("PY", folder, lambda line: None)
    assert not folder.exists() and list(folder.parent.iterdir()) == []
    monkeypatch.setattr(doing, "_run", lambda command, *rest: (stop if "--build" in command else run)(command, *rest))
    with pytest.raises(KeyboardInterrupt):  # while it builds
        llama_cpp.build("PY", folder, lambda line: None)
    assert len(llama_cpp.missing(folder)) == 2
    monkeypatch.setattr(doing, "_run", run)
    llama_cpp.build("PY", folder, lambda line: None)
    assert llama_cpp.missing(folder) == []


def test_an_archive_that_was_not_tested_and_a_missing_cmake_are_refused(stand_in, monkeypatch):
    folder, commands = stand_in
    monkeypatch.setattr(llama_cpp, "SHA256", "0" * 64)
    with pytest.raises(SetupError, match="not the archive that was tested"):
        llama_cpp.build("PY", folder, lambda line: None)
    assert not folder.exists()
    commands.clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="CMake was not found"):
        llama_cpp.build("PY", folder, lambda line: None)
    assert commands == []


def test_a_folder_with_something_else_is_left_alone(stand_in):
    folder, _ = stand_in
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="Move it away"):
        llama_cpp.build("PY", folder, lambda line: None)
    assert (folder / "thesis.txt").exists()
