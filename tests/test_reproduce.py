"""The commit of a result is its package's, and no file is ever half written."""

import errno
import multiprocessing
import os
import signal
import subprocess

import pytest
from tqdm import tqdm

from dmxlib.errors import InputError, exit_on_input_error, sentence, unwritable
from dmxlib.reproduce import alone, batches, facts, git_commit, together, whole


def test_commit_is_of_the_package(tmp_path):
    package, results = tmp_path / "dmxlib" / "unet.py", tmp_path / "results.csv"
    package.parent.mkdir()
    assert git_commit(package.parent) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    package.touch(), results.touch()
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    commit = git_commit(package.parent)
    assert len(commit) == 12
    results.write_text("new")
    assert git_commit(package.parent) == commit
    package.write_text("new")
    assert git_commit(package.parent) == f"{commit}-dirty"


def test_facts_of_a_result():
    about = facts("python -m dmxlib.demo", songs=3)
    assert about["command"] == "python -m dmxlib.demo" and about["songs"] == 3
    assert about.keys() >= {"commit", "torch", "machine", "date"}
    assert "pytest" in facts()["command"]  # the process's own


def test_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "scores.csv"
    with whole(path) as part:
        part.write_text("1,2")
        assert part.parent == path.parent and part.suffix == ".csv" and not path.exists()
    assert path.read_text() == "1,2" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_not_finished_goes_and_what_was_there_stays(tmp_path, kind):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        if kind == "folder":
            part.mkdir()
            part = part / "file"
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_folder_appears_when_it_is_whole(tmp_path):
    with whole(tmp_path / "test-1") as part:
        (part / "page").mkdir(parents=True)
        (part / "page" / "index.html").write_text("hello")
    assert (tmp_path / "test-1" / "page" / "index.html").read_text() == "hello"


def test_files_that_belong_together_appear_together(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt), together(tmp_path) as part:
        (part / "a.csv").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with together(tmp_path) as part:
        for name in ("a.csv", "b.csv"):
            (part / name).write_text("new")
        assert (tmp_path / "a.csv").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "new", "b.csv": "new"}


def test_what_a_library_says_of_a_full_disk_is_asked_of_the_system(tmp_path):
    told = r"a.wav cannot be written \(no space left on device, 2.0 MB are needed\); choose another folder\.$"
    with pytest.raises(InputError, match=told), whole(tmp_path / "a.wav", 2e6) as part:
        part.symlink_to("/dev/full")
        raise RuntimeError("System error.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_what_the_system_says_of_a_full_disk_is_told(code):
    told = str(unwritable("a.wav", OSError(code, os.strerror(code)), 2e6))
    assert told.startswith(f"a.wav cannot be written ({os.strerror(code).lower()}")
    assert told.endswith("); choose another folder.")
    assert ("2.0 MB are needed" in told) == (code != errno.EROFS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_what_the_system_refuses_is_one_sentence(code):
    reason = os.strerror(code)
    told = sentence(OSError(code, reason, "song.wav"))
    assert told == f"song.wav cannot be written or read ({reason.lower()})."
    assert sentence(OSError(errno.EPIPE, "Broken pipe", "song.wav")) is None  # a bug


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(InputError, match=r"/a+\.wav cannot be written \(file name too long\)"):
        with whole(tmp_path / f"{300 * 'a'}.wav") as part:
            part.write_text("")


def test_what_a_killed_process_left_behind_goes_and_what_another_writes_stays(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, others = tmp_path / f".a.part{dead.pid}.csv", tmp_path / f".a.part{os.getppid()}.csv"
    left.touch(), others.touch()
    with whole(tmp_path / "a.csv") as part:
        part.touch()
    assert sorted(tmp_path.iterdir()) == [others, tmp_path / "a.csv"]


def test_what_is_told_of_an_error_begins_a_line_of_its_own(capsys):
    @exit_on_input_error
    def command():
        bar = tqdm(total=2)
        bar.update()
        raise InputError("there is no song.")

    with pytest.raises(SystemExit, match="^error: there is no song.$"):
        command()
    assert capsys.readouterr().err.endswith("\n")


@pytest.fixture
def interruptible():
    """SIGINT is Python's own, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_waits_for_the_first_batch_and_a_second_one_does_not(times, interruptible):
    made = []

    def loader():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        made.append(0)
        yield from (1, 2)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        batches(loader())
    assert len(made) == (times == 1) and signal.getsignal(signal.SIGINT) is handler
    assert [*batches([1, 2])] == [1, 2] and [*batches([])] == []


def hold(folder, told):
    with alone(folder):
        told.send("mine")
        signal.pause()


def test_a_folder_is_one_process_own_until_it_is_killed(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path / "run", theirs))
    process.start()
    ours.recv()
    with (
        pytest.raises(InputError, match="run is written to by another process; .*[.]$"),
        alone(tmp_path / "run"),
    ):
        pass
    process.kill()
    process.join()
    for _ in range(2):
        with alone(tmp_path / "run"):
            assert list((tmp_path / "run").iterdir()) == []
    assert list(tmp_path.iterdir()) == []  # nothing was written, nothing is left
