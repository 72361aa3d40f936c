"""Show a test in browsers and keep what listeners send."""

import asyncio
import json
from pathlib import Path

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from dmxlib.errors import InputError
from dmxlib.listening.results import check, read_key, save

MAX_BYTES = 1_000_000  # of what a listener sends: a hundred times what is needed


class Page(tornado.web.StaticFileHandler):
    """Files of page/ and nothing else; byte ranges, which browsers seek in audio with."""

    def set_extra_headers(self, path):
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")  # ask each time: a new test may have the same address


class Results(tornado.web.RequestHandler):
    """Takes the ratings of one listener, complete, once."""

    def initialize(self, key: dict, folder: Path):
        self.key, self.folder = key, folder

    def post(self):
        # A browser sends JSON to another site's server only if that allows it: no other page can post here.
        if self.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            return self.refuse(415, "Ratings are sent as application/json.")
        try:
            document = json.loads(self.request.body)
            check(document, self.key)
        except InputError as error:
            return self.refuse(400, f"These ratings cannot be used: {error}")
        except (ValueError, RecursionError):
            return self.refuse(400, "These ratings are not JSON.")
        try:
            saved = save(document, self.folder)
        except OSError as error:
            return self.refuse(500, f"The ratings could not be saved ({error.strerror}).")
        if not saved:
            return self.refuse(409, "Other ratings of this listener are saved already.")
        self.write({"saved": True})

    def refuse(self, status: int, sentence: str) -> None:
        """Answer with one sentence that the page shows."""
        self.set_status(status)
        self.write({"error": sentence})


def make_app(folder: Path) -> tornado.web.Application:
    """The web application of a test's folder. Raises InputError where it is none."""
    key = read_key(folder / "key.json")
    if not (folder / "page" / "test.json").is_file():
        raise InputError(f"{folder}/page/test.json does not exist; make the test again.")
    return tornado.web.Application(
        [
            ("/results", Results, {"key": key, "folder": folder / "results"}),
            ("/(.*)", Page, {"path": str(folder / "page"), "default_filename": "index.html"}),
        ]
    )


def serve(folder: Path, host: str, port: int) -> None:
    """Serve until interrupted; what listeners send lands in FOLDER/results, one JSON file each.

    Raises InputError where the folder is no test, or the address cannot be had.
    """
    app = make_app(folder)

    async def run():
        server = HTTPServer(app, max_body_size=MAX_BYTES)
        try:
            sockets = bind_sockets(port, host)
        except (OSError, OverflowError) as error:
            raise InputError(f"{host}:{port} cannot be had ({error}); choose another --port.") from error
        server.add_sockets(sockets)
        bound = sockets[0].getsockname()[1]
        print(
            f"The test is at http://{host}:{bound}, ratings land in {folder / 'results'}; Ctrl-C ends.",
            flush=True,
        )
        await asyncio.Event().wait()

    asyncio.run(run())
