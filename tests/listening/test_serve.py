"""The server takes what it expects and nothing else, and loses nothing; the page in a real browser."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error

import browser
import pytest
from made_listening import DOCTORED, Server, killed_at, raw, requests, resident, submission

from dmxlib.listening import __main__ as command
from dmxlib.listening import make, results

pytest_plugins = ["listening_fixtures"]


def test_listening_server_accepts_what_it_expects_and_nothing_else(server, package, key):
    assert server.url.startswith("http://127.0.0.1:")
    assert b"<title>Listening test" in server.get("/").read()
    sample = next(iter(key["samples"]))
    with server.get(f"/audio/{sample}.wav", Range="bytes=0-3") as answer:
        assert answer.status == 206 and answer.read() == b"RIFF"
    for path in ("/key.json", "/../key.json", "/%2e%2e/key.json", "/audio/", "/results", "/results/x"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.get(path)
        assert refused.value.code in (403, 404, 405)

    saved = package / "results" / f"{'0' * 32}.json"
    for name in DOCTORED:
        assert server.post(DOCTORED[name](submission(key)))[0] == 400
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        assert server.post(body)[0] == 400
    assert server.post(submission(key), kind="text/plain")[0] == 415
    assert server.post(b"[" * 2_000_000)[0] != 200
    assert server.post(submission(key), path="/index.html")[0] == 405
    assert not saved.exists()

    assert server.post(submission(key)) == (200, {"saved": True})
    assert server.post(submission(key)) == (200, {"saved": True})  # an answer that got lost
    status, answer = server.post(submission(key, 5))
    assert status == 409 and "saved already" in answer
    assert json.loads(saved.read_text()) == submission(key)


def test_listening_server_killed_after_saving_loses_nothing(server, package, key):
    listeners = [f"{number:032x}" for number in range(5)]
    for listener in listeners:
        assert server.post(submission(key, listener=listener))[0] == 200
    server.process.send_signal(signal.SIGKILL)
    assert sorted(path.stem for path in (package / "results").iterdir()) == listeners
    ratings, notes = results.read_results(package / "results", key)
    assert ratings.listener.nunique() == 5 and not notes


def test_listening_server_says_where_it_cannot_save(server, package, key):
    shutil.rmtree(package / "results", ignore_errors=True)
    (package / "results").touch()  # a file where the folder should be
    status, answer = server.post(submission(key))
    (package / "results").unlink()
    assert status == 500 and "could not be saved" in answer
    assert server.post(submission(key))[0] == 200  # once that is mended the page's "Try again" works


def test_listening_server_says_where_its_port_is_taken(package):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match=f"^error: 127.0.0.1:{port} cannot be had"):
            command.main(["serve", str(package), "--port", port])


def test_listening_server_asks_other_machines_for_a_token(package, key):
    started = Server(package, "0.0.0.0")
    try:
        for path in ("/", "/test.json", "/?token=", "/?token=wrong", "/?token=%C3%BC"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                started.get(path)
        assert started.post(submission(key))[0] == 403
        with started.get("/" + started.token[1:]) as answer:
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert b"listening" in started.get("/test.json", Cookie=cookie.partition(";")[0]).read()
    finally:
        started.process.kill()
        started.process.communicate()


def test_listening_page_may_load_nothing_from_elsewhere(server):
    with server.get("/") as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy


def test_listening_server_fuzzed(server, package, key, rng):
    """Nothing outside its folder is shown, nothing is saved, and its memory does not grow."""
    secret = (package / "key.json").read_bytes()[:40]
    kinds = requests(rng, key)
    for count in (100, 200):
        for _ in range(count):
            answer = raw(server, next(kinds), 0.05)
            assert secret not in answer and b"root:" not in answer
            assert not answer.startswith(b"HTTP/1.1 5"), answer[:300]
        if count == 100:
            before = resident(server.process)
    assert resident(server.process) - before < 10
    assert not list((package / "results").glob("*")) and server.get("/").status == 200
    assert {path.name for path in package.iterdir()} <= {
        "page",
        "webmushra",
        "key.json",
        "README.md",
        "results",
    }


def test_listening_server_answers_beside_slow_connections(server, key):
    """400 that send one byte and then nothing."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    before = resident(server.process)
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(socket.create_connection(address, 5)).sendall(b"P")
        assert server.get("/").status == 200 and server.post(submission(key))[0] == 200
        assert resident(server.process) - before < 30


def test_listening_ratings_survive_a_kill_at_any_write(key, tmp_path):
    document, write = submission(key), 0

    def save():
        results.save(document, tmp_path / "results")

    while killed_at(write, save):
        left = [*(tmp_path / "results").glob("*.json")]
        assert not left or json.loads(left[0].read_text()) == document
        write += 1
    assert write > 1 and results.save(document, tmp_path / "results")
    assert results.read_results(tmp_path / "results", key)[0].listener.nunique() == 1


# -- the page, in a real browser -----------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(
    not browser.INSTALLED,
    reason="chromium and chromedriver are not installed; `make test-browser` installs them",
)
QUESTION = "return document.querySelector('h1').textContent"
STATE = "return JSON.parse(localStorage[localStorage.key(0)])"


def set_volume(window):
    window.click(".play")
    window.wait("return document.querySelector('.heard.yes')")
    window.click("#next")


def listen(window, card):
    """Play a card's sample to its end."""
    assert window.run("return document.querySelector(arguments[0]).disabled", f"{card} fieldset")
    window.click(f"{card} .play")
    window.wait("return !document.querySelector(arguments[0]).disabled", f"{card} fieldset")


def answer(window, grades, listened=False):
    """Rate each sample of the page by `grades`, a function of its name; the first one from the keyboard."""
    names = window.run(
        "return [...document.querySelectorAll('.samples fieldset')].map(f => f.elements[0].name)"
    )
    for number, name in enumerate(names, 1):
        card = f".samples .card:nth-child({number})"
        if not listened:
            listen(window, card)
        if number == 1:
            window.run("document.querySelector(arguments[0]).focus()", f"{card} .play")
            window.press(str(grades(name)))
        else:
            window.click(f"{card} input[value='{grades(name)}']")
    return names


@needs_chromium
def test_listening_browser_walks_a_listener_through(server, package, key, tmp_path):
    broad = {name for name, sample in key["samples"].items() if sample["system"] == "broad"}

    def grades(name):
        return 5 if name in broad else 2

    with browser.Browser(tmp_path / "profile", 1280, 900) as window:
        window.open(server.url)
        window.wait("return document.querySelector('h1')")
        window.click("#next")  # without consent
        assert "tick the box" in window.run("return document.getElementById('status').textContent")
        window.press(" ")  # the box has the focus
        window.click("#next")
        assert window.run(QUESTION) == "Set the volume"
        window.click("#next")  # without having listened
        assert "play the song first" in window.run("return document.getElementById('status').textContent")
        set_volume(window)

        questions, rated = [], []
        for page in range(9):  # practice and two items, three questions each
            questions.append(window.run(QUESTION))
            assert window.run("return document.activeElement.tagName") == "H1"
            if page == 0:
                window.click("#next")  # nothing rated yet
                status = window.run("return document.getElementById('status').textContent")
                assert status == "Still to be rated: A, B." and window.run(QUESTION) == questions[0]
                assert window.run("return document.activeElement.ariaLabel") == "Play Sample A"
            rated.append(answer(window, grades, listened=page % 3 > 0))
            if page == 4:  # in the middle of an item, rated but not gone on
                before = window.run(STATE)
                window.reload()
                window.wait("return document.querySelector('.samples')")
                assert window.run(STATE) == before and window.run(QUESTION) == questions[-1]
                checked = window.run(
                    "return [...document.querySelectorAll(':checked')].map(i => [i.name, +i.value])"
                )
                assert dict(checked) == {name: grades(name) for name in rated[-1]}
            last = "Finish and send" if page == 8 else "Next"
            assert window.run("return document.getElementById('next').textContent") == last
            window.click("#next")
        assert questions == [aspect.question for aspect in make.ASPECTS] * 3  # intelligibility first
        assert rated[0] == rated[1] == rated[2] and set(rated[3]) != set(rated[6])
        window.wait("return document.querySelector('.outcome').textContent.includes('are saved')")
        state, errors = window.run(STATE), window.log()
        requests = window.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        window.reload()  # does not send again
        window.wait("return document.querySelector('.outcome').textContent.includes('are saved')")

    assert not errors and all(url.startswith(server.url) for url in requests)
    (path,) = (package / "results").iterdir()
    assert path.stem == state["listener"]
    ratings, notes = results.read_results(package / "results", key)
    assert not notes and len(ratings) == 12
    assert all(row.rating == (5 if row.system == "broad" else 2) for row in ratings.itertuples())


@needs_chromium
def test_listening_browser_on_a_phone_without_a_server_to_save(package, key, tmp_path):
    """On a plain web server, at a phone's width: nothing sticks out, and the ratings can be downloaded."""
    arguments = ["-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(package / "page")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([sys.executable, "-u", *arguments], **pipes)
    try:
        url = re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        with browser.Browser(tmp_path / "profile", 390, 844) as window:
            window.open(url)
            window.wait("return document.querySelector('h1')")
            fits = "return document.documentElement.scrollWidth <= 390"
            assert window.run(fits)
            # A browser that keeps nothing says so.
            window.run("Storage.prototype.setItem = () => { throw new Error('full') }")
            window.click("#agree")
            window.click("#next")
            assert not window.run("return document.getElementById('warning').hidden") and window.run(fits)
            window.reload()
            window.wait("return document.getElementById('agree')")
            # A listener who has rated everything, as an earlier visit left it.
            document = submission(key, 4)
            ratings = {rating["sample"]: dict.fromkeys(key["aspects"], 4) for rating in document["ratings"]}
            window.click("#agree")
            window.click("#next")
            set_volume(window)
            assert window.run(fits) and len(window.run("return [...document.querySelectorAll('.play')]")) == 3
            window.run(
                "const state = JSON.parse(localStorage[arguments[0]]);"
                "localStorage[arguments[0]] = JSON.stringify({...state, ratings: arguments[1], page: 11})",
                key["id"],
                ratings,
            )
            window.reload()
            window.wait("return document.querySelector('.outcome')?.textContent.includes('takes no ratings')")
            assert window.run(fits)
            folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
            command = {"cmd": "Page.setDownloadBehavior", "params": folder}
            window.call("POST", "/goog/cdp/execute", command)
            window.click("#download")
            name = f"{window.run(STATE)['listener']}.csv"
            end = time.monotonic() + 30
            while not (tmp_path / name).exists() and time.monotonic() < end:
                time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    (tmp_path / "sent").mkdir()
    (tmp_path / name).rename(tmp_path / "sent" / name)
    sent, notes = results.read_results(tmp_path / "sent", key)
    assert not notes and set(sent.rating) == {4} and len(sent) == 12
