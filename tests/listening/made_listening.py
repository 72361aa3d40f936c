"""What these tests share: stand-ins for systems, what listeners send, a server."""

import contextlib
import csv
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas
from scipy.signal import butter, sosfilt

from dmxlib import audio
from dmxlib.data import load_tracks
from dmxlib.evaluation.scoring import above
from dmxlib.listening import results

BANDS = {"broad": (150, 3500), "dull": (150, 900)}  # Hz: stand-ins for systems, the mixture filtered
RATE = 8000  # of what is made here


def filtered(mixture, band, rate):
    return sosfilt(butter(2, band, "bandpass", fs=rate, output="sos"), mixture).astype(np.float32)


def separate_all(data_root, estimates):
    """Let the stand-ins separate each test song into museval's layout."""
    for track in load_tracks(data_root, "test"):
        for system, band in BANDS.items():
            wave = filtered(track.mixture(), band, track.rate)
            audio.write(estimates / system / track.name / "vocals.wav", wave, track.rate)


def loud(track):
    """In place of `make.voiced_tenths`, whose pYIN is slow: without noise the level says what is voiced."""
    return np.stack(2 * [above(track.vocals(), track.rate, -40.0)])


def submission(key, rating=3, listener="0" * 32):
    """What the page sends where each answer is the same, or a function of (sample, aspect)."""
    choose = rating if callable(rating) else lambda sample, aspect: rating
    pairs = itertools.product(results.rated_samples(key), key["aspects"])
    ratings = [{"sample": s, "aspect": a, "rating": choose(s, a)} for s, a in pairs]
    return {"test": key["id"], "listener": listener, "ratings": ratings}


def changed(document, **changes):
    return {**document, **changes}


def changed_rating(document, **changes):
    return {**document, "ratings": [{**document["ratings"][0], **changes}, *document["ratings"][1:]]}


DOCTORED = {
    "no object": lambda document: [document],
    "another test": lambda document: changed(document, test="listening-other"),
    "a path": lambda document: changed(document, listener="../../../../../etc/passwd"),
    "a listener that is no string": lambda document: changed(document, listener=7),
    "something more": lambda document: changed(document, comment="x"),
    "ratings that are no list": lambda document: changed(document, ratings={}),
    "a rating missing": lambda document: changed(document, ratings=document["ratings"][1:]),
    "a rating twice": lambda document: changed(
        document, ratings=document["ratings"] + document["ratings"][:1]
    ),
    "a rating of 6": lambda document: changed_rating(document, rating=6),
    "a rating of true": lambda document: changed_rating(document, rating=True),
    "a rating of 3.5": lambda document: changed_rating(document, rating=3.5),
    "an unknown sample": lambda document: changed_rating(document, sample="x00000000"),
    "a sample that is a list": lambda document: changed_rating(document, sample=[]),
}


def write_page_csv(document, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(results.PAGE_COLUMNS)
        writer.writerows(
            [document["test"], document["listener"], *rating.values()] for rating in document["ratings"]
        )


def lms_lines(key, listener, rating, aspects=None, sends=1, training=True):
    """The lines that webMUSHRA's write.php adds: each send again puts the listener's name in once more."""
    samples = key["samples"] if training else results.rated_samples(key)
    for send in range(1, sends + 1):
        for aspect, (name, sample) in itertools.product(aspects or key["aspects"], samples.items()):
            names = [listener] * send
            yield [f"{key['id']}_{aspect}", *names, sample["item"], f" {rating} ", name, 12_345]


def write_lms(path, lines, header=("session_test_id", "participant_id")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([[*header, *results.WEBMUSHRA_COLUMNS], *lines])


def killed_at(write, function):
    """Whether a process that calls the function is killed at its n-th write; it may end before."""
    child = os.fork()
    if child == 0:
        left = itertools.count(write, -1)

        def hook(event, arguments):
            writes = event in ("os.mkdir", "os.rename") or event == "open" and "w" in str(arguments[1])
            if writes and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            function()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


class Server:
    """`python -m dmxlib.listening serve` on a free port, as a process of its own."""

    def __init__(self, folder, host="127.0.0.1"):
        arguments = [sys.executable, "-m", "dmxlib.listening", "serve", str(folder), "--port", "0"]
        arguments += ["--host", host]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(arguments, **pipes)
        self.url, self.token = re.search(
            r"(http://[\d.]+:\d+)(\S*),", self.process.stdout.readline()
        ).groups()

    def get(self, path, **headers):
        return urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=30)

    def post(self, document, kind="application/json", path="/results"):
        """(status, answer) of sending a document, or bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with contextlib.suppress(ConnectionError):  # it may hang up on what is too long
                return error.code, error.read().decode()
        except OSError:
            pass
        return None, ""


def raw(server, request, seconds=0.3):
    """What the server answers to these bytes, as far as it comes in time."""
    answer = b""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 5) as connection:
        connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            connection.sendall(request)
            while part := connection.recv(2**16):
                answer += part
    return answer


def resident(process):
    """Megabytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def requests(generator, key):
    """Requests without an end: paths out of the folder, wrong lengths, bodies that never end, noise."""
    parts = [
        "..",
        "%2e%2e",
        "%2E%2e",
        "..%2f",
        "%5c..",
        "\\\\",
        "//",
        "%00",
        "%",
        "~root",
        "key.json",
        "results",
    ]
    body = json.dumps(submission(key, 5)).encode()
    while True:
        path = "/" + "/".join(generator.choice(parts, generator.integers(1, 6)))
        path += str(generator.choice(["", "/key.json", "?token=%ff", "/etc/passwd", "a" * 70_000]))
        method = generator.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "\x00", "GET" * 100])
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        json_head = "POST /results HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        noise = generator.bytes(200)
        yield generator.choice(
            np.array(
                [
                    f"{head}\r\n".encode(),
                    f"{head}Range: bytes={generator.integers(-9, 9)}-{'9' * 30}\r\n\r\n".encode(),
                    f"{json_head}Content-Length: {generator.choice([-1, 10**15, 5, 0])}\r\n\r\n".encode()
                    + body,
                    f"{json_head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"ffff\r\n" + body,
                    f"{json_head}Content-Length: {len(noise)}\r\n\r\n".encode() + noise,
                    f"GET / HTTP/1.1\r\nX: {'y' * 100_000}\r\n\r\n".encode(),
                    noise,
                ],
                object,
            )
        )


def simulate(
    key: dict,
    quality: dict[str, float],
    listeners: int,
    generator: np.random.Generator,
    spread=0.5,
    noise=0.8,
) -> pandas.DataFrame:
    """Made-up ratings.

    Each is a system's quality plus a listener's own offset (deviation `spread`) plus chance (`noise`),
    rounded to 1 to 5; columns as in `read_results`.
    """
    samples = pandas.DataFrame.from_dict(results.rated_samples(key), orient="index")[["system", "item"]]
    samples = samples.rename_axis("sample").reset_index()
    people = pandas.DataFrame({"listener": [f"simulated-{number:03}" for number in range(listeners)]})
    people["offset"] = generator.normal(0, spread, listeners)
    rows = people.merge(pandas.DataFrame({"aspect": key["aspects"]}), "cross").merge(samples, "cross")
    latent = rows.system.map(quality) + rows.offset + generator.normal(0, noise, len(rows))
    rows["rating"] = np.clip(np.round(latent), 1, 5).astype(int)
    return rows[["listener", "item", "system", "aspect", "rating", "sample"]]
