"""Show a test in browsers and keep what listeners send."""

import asyncio
import hmac
import ipaddress
import json
import secrets
from pathlib import Path

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from dmxlib.errors import InputError
from dmxlib.listening.results import check, read_key, save, tidy

MAX_BYTES = 1_000_000  # of what a listener sends: a hundred times what is needed
MAX_SECONDS = 60  # that a request may take to arrive: a slow connection is not kept for ever
POLICY = (  # the page's own, and that no other page shows it
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Handler(tornado.web.RequestHandler):
    """Answers those who know the token, where there is one: it comes with the address, then as a cookie."""

    def set_default_headers(self):
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")  # the address holds the token

    def prepare(self):
        if token := self.settings["token"]:
            given = self.get_query_argument("token", None) or self.get_cookie("token", "")
            if not hmac.compare_digest(given.encode(), token.encode()):
                raise tornado.web.HTTPError(403)
            self.set_cookie("token", token, httponly=True, samesite="Strict")


class Page(Handler, tornado.web.StaticFileHandler):
    """Files of page/ and nothing else; byte ranges, which browsers seek in audio with."""

    def validate_absolute_path(self, root, absolute_path):
        try:
            return super().validate_absolute_path(root, absolute_path)
        except ValueError as error:  # a NUL in it
            raise tornado.web.HTTPError(404) from error

    def set_extra_headers(self, path):
        self.set_header("Cache-Control", "no-cache")  # ask each time: a new test may have the same address


class Results(Handler):
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


def make_app(folder: Path, token: str | None = None) -> tornado.web.Application:
    """The web application of a test's folder, for those who know the token. Raises InputError where it is
    none."""
    key = read_key(folder / "key.json")
    if not (folder / "page" / "test.json").is_file():
        raise InputError(f"{folder}/page/test.json does not exist; make the test again.")
    return tornado.web.Application(
        [
            ("/results", Results, {"key": key, "folder": folder / "results"}),
            ("/(.*)", Page, {"path": str(folder / "page"), "default_filename": "index.html"}),
        ],
        token=token,
    )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(folder: Path, host: str, port: int) -> None:
    """Serve until interrupted; what listeners send lands in FOLDER/results, one JSON file each.

    Where other machines can reach it, the address that is printed holds a token, and nobody is answered
    without it.

    Raises InputError where the folder is no test, or the address cannot be had.
    """
    if not 0 <= port < 2**16:  # which the system would take the remainder of
        raise InputError(f"--port is {port}; choose 0 to 65535.")
    token = None if is_loopback(host) else secrets.token_urlsafe(16)
    app = make_app(folder, token)

    tidy(folder / "results")

    async def run():
        server = HTTPServer(
            app, max_body_size=MAX_BYTES, body_timeout=MAX_SECONDS, idle_connection_timeout=MAX_SECONDS
        )
        try:
            sockets = bind_sockets(port, host)
        except (OSError, OverflowError) as error:
            raise InputError(f"{host}:{port} cannot be had ({error}); choose another --port.") from error
        server.add_sockets(sockets)
        address = f"http://{host}:{sockets[0].getsockname()[1]}" + (f"/?token={token}" if token else "")
        print(f"The test is at {address}, ratings land in {folder / 'results'}; Ctrl-C ends.", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())
