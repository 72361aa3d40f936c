"""The listening test's server under what nobody should send it: `python tests/fuzz.py [--seconds S]`.

Writes results/reliability/server.md: of each kind of attack the requests, the seconds, what the server's
memory grew by, and the faults found. Ends with code 1 where there is one.
"""

import argparse
import contextlib
import copy
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).with_name("listening")))
from made_listening import Server, raw, requests, resident, submission

import dmxlib.listening
from dmxlib import reproduce
from dmxlib.listening import results

RESULTS = Path(__file__).parents[1] / "results" / "reliability"
LISTENER = "f" * 32
KEY = {
    "id": "listening-x",
    "systems": ["a", "b"],
    "aspects": ["intelligibility"],
    "samples": {
        f"x{system}{item}": {"system": system, "item": item, "training": item == "0"}
        for system in "ab"
        for item in "012"
    },
}
VALUES = (
    None,
    True,
    -1,
    0,
    6,
    3.5,
    1e999,
    2**70,
    "",
    "x",
    "../" * 9,
    "\0",
    "é" * 999,
    [],
    {},
    [[[]]],
    {"a": 1},
)


def make_test(folder: Path) -> None:
    """A test's folder, and beside it a file that nobody is to see."""
    page = Path(dmxlib.listening.__file__).with_name("page")
    shutil.copytree(page, folder / "page")
    (folder / "page" / "test.json").write_text("{}")
    (folder / "key.json").write_text(json.dumps(KEY))
    (folder.parent / "secret.txt").write_text("secret: of the folder above")


def of_this_server(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 30)


def saved(folder: Path) -> dict:
    """What lies in results/, by file; a file that is no JSON raises."""
    return {path.name: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}


# -- attacks: functions of (server, folder, seconds, generator) -> (requests, faults) ------------------------


def noise(server, folder, seconds, generator):
    """Paths out of the folder, NUL, encoded slashes, wrong lengths, bodies without an end, bytes that are no
    HTTP: nothing is shown or saved, and no answer is an error of the server's own."""
    count, faults, kinds, end = 0, 0, requests(generator, KEY), time.monotonic() + seconds
    secrets = [b'"systems"', b"secret: of", b"root:"]
    while time.monotonic() < end:
        answer = raw(server, next(kinds), 0.05)
        count += 1
        faults += answer.startswith(b"HTTP/1.1 5") or any(secret in answer for secret in secrets)
    return count, faults + bool(saved(folder))


def spoilt(document, generator):
    """A copy of what the page sends, changed in one place or two."""
    document = copy.deepcopy(document)
    for _ in range(generator.integers(1, 3)):
        place, parts = document, []
        while isinstance(place, dict | list) and place and (not parts or generator.random() < 0.7):
            keys = [*place] if isinstance(place, dict) else range(len(place))
            parts.append((place, keys[generator.integers(len(keys))]))
            place = place[parts[-1][1]]
        parent, key = parts[-1]
        if generator.random() < 0.3:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(VALUES[generator.integers(len(VALUES))])
    return document


def documents(server, folder, seconds, generator):
    """JSON that is nearly right: refused with 400, or it is complete after all."""
    count, faults, whole, end = 0, 0, submission(KEY, 3, LISTENER), time.monotonic() + seconds
    while time.monotonic() < end:
        document = spoilt(whole, generator)
        with contextlib.suppress(ValueError, RecursionError):
            if json.loads(json.dumps(document)) == whole:
                continue
        body = json.dumps(document).encode()
        if generator.random() < 0.2:
            body = body[: generator.integers(len(body))]
        status, _ = server.post(body)
        count += 1
        faults += status != 400
    return count, faults + bool(saved(folder))


def two_of_one_name(server, folder, seconds, generator):
    """Two at once, with one listener's number and other ratings: one is saved, the other is told so."""
    count, faults, end = 0, 0, time.monotonic() + seconds
    with ThreadPoolExecutor(2) as pool:
        while time.monotonic() < end:
            listener = generator.bytes(16).hex()
            both = [submission(KEY, rating, listener) for rating in (2, 4)]
            answers = [status for status, _ in pool.map(server.post, both)]
            count += 2
            kept = saved(folder).get(f"{listener}.json")
            faults += sorted(answers, key=str) != [200, 409] or kept != both[answers.index(200)]
    return count, faults


def slow(server, folder, seconds, generator):
    """A thousand connections that send a byte and then nothing: others are answered beside them."""
    faults = 0
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(of_this_server(server)).sendall(b"P")
        faults += server.get("/").status != 200
        faults += server.post(submission(KEY, 3, LISTENER))[0] != 200
    return 1002, faults + (f"{LISTENER}.json" not in saved(folder))


def endless(server, folder, seconds, generator):
    """Bodies that go on until the server hangs up, which it does after a megabyte."""
    head = b"POST /results HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    chunk, faults = b"10000\r\n" + b"[" * 2**16 + b"\r\n", 0
    for _ in range(20):
        sent = 0
        with of_this_server(server) as connection, contextlib.suppress(OSError):
            connection.sendall(head)
            while sent < 50 * 2**20:
                connection.sendall(chunk)
                sent += 2**16
        faults += sent >= 50 * 2**20
    return 20, faults


def killed(server, folder, seconds, generator):
    """A save that is killed after each byte of its file: all of it is there or nothing, and the listener
    sends again. No server, but what it calls."""
    document = submission(KEY, 3, LISTENER)
    place = folder / "killed"
    results.save(document, place)
    size, faults = (place / f"{LISTENER}.json").stat().st_size, 0
    for most in range(size + 1):
        shutil.rmtree(place)
        child = os.fork()
        if child == 0:  # the system ends it where the file would become longer
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            results.save(document, place)
            os._exit(0)
        died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        faults += died != (most < size) or died == (place / f"{LISTENER}.json").exists()
        results.tidy(place)
        faults += not results.save(document, place)
        faults += [path.name for path in place.iterdir()] != [f"{LISTENER}.json"]
    return size + 1, faults


ATTACKS = {
    "paths out of the folder, wrong lengths, noise": noise,
    "JSON that is nearly right": documents,
    "two listeners with one name": two_of_one_name,
    "a thousand slow connections": slow,
    "bodies without an end": endless,
    "a kill at any byte of a save": killed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each attack that has no end of its own")
    options = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 4096), limit))
    rows, generator = [], np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "test"
        make_test(folder)
        there = {path for path in Path(above).rglob("*")}
        server = Server(folder)
        try:
            server.get("/").read()
            for what, attack in ATTACKS.items():
                before, begin = resident(server.process), time.monotonic()
                count, faults = attack(server, folder, options.seconds, generator)
                seconds, grown = time.monotonic() - begin, resident(server.process) - before
                faults += server.process.poll() is not None or server.get("/").status != 200
                new = {path for path in Path(above).rglob("*") if path.is_file()} - there
                faults += any(path.suffix != ".json" for path in new)
                rows.append([what, str(count), f"{seconds:.0f}", f"{grown:+.1f}", str(int(faults))])
                print(*rows[-1], sep=" | ", flush=True)
        finally:
            server.process.kill()
            server.process.communicate()
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    requests_, faults = (sum(int(row[column]) for row in rows) for column in (1, 4))
    with reproduce.whole(RESULTS / "server.md") as part:
        part.write_text(
            "# The listening test's server under attack\n\n"
            f"{requests_} requests, {faults} faults found. A fault is a file shown from outside of the page, "
            "something\nsaved that is not complete, a listener lost, a file outside of results/, an error of "
            "the server's own,\nor its end. One server for all, one attack after the other; memory is what "
            f"that grew by.\nMade by `python tests/fuzz.py --seconds {options.seconds:g}`.\n\n"
            "| attack | requests | seconds | memory, MB | faults |\n|---|---|---|---|---|\n" + table + "\n"
        )
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
