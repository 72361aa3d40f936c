"""A listening test, made once for each file of tests, and its server.

Files take these by `pytest_plugins`: a second conftest.py would hide the first.
"""

import pytest
from made_listening import BANDS, Server, loud, separate_all

from dmxlib import metrics
from dmxlib.listening import __main__ as command
from dmxlib.listening import results


@pytest.fixture(scope="module")
def estimates(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    separate_all(toy_root, folder)
    return folder


@pytest.fixture(scope="module")
def package(toy_root, estimates, tmp_path_factory):
    """A test of two systems, two excerpts of 1.2 s and one for practice, all of the one toy song."""
    folder = tmp_path_factory.mktemp("package") / "test"
    options = ["--data_root", toy_root, "--systems", *BANDS, "--recordings", 2, "--seconds", 1.2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "voiced_mask", loud)
        command.main(["make", *map(str, [estimates, folder, *options])])
    return folder


@pytest.fixture(scope="module")
def key(package):
    return results.read_key(package / "key.json")


@pytest.fixture
def server(package):
    started = Server(package)
    yield started
    started.process.kill()
    started.process.communicate()  # closes the pipe as well
    for path in (package / "results").glob("*"):
        path.unlink()
