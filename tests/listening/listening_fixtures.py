"""A listening test, made once for each file of tests, and its server.

Files take these by `pytest_plugins`: a second conftest.py would hide the first.
"""

import pytest
from made_listening import BANDS, Server, loud, separate_all

from dmxlib.listening import make, results


@pytest.fixture(scope="module")
def estimates(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    separate_all(toy_root, folder)
    return folder


@pytest.fixture(scope="module")
def package(toy_root, estimates, tmp_path_factory):
    """A test of two systems, two excerpts of 1.2 s and one for practice, all of the one toy song."""
    folder = tmp_path_factory.mktemp("package") / "test"
    make.make(estimates, folder, toy_root, list(BANDS), recordings=2, seconds=1.2, voiced=loud)
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
