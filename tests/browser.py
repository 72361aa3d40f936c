"""A headless Chromium, driven by chromedriver in the words of W3C WebDriver: as much as the tests need."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's number, fixed by the standard
INSTALLED = bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One window of `width` x `height`; a context manager that ends what it started."""

    def __init__(self, profile, width, height):
        self.process = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            lines = iter(self.process.stdout.readline, "")
            port = next(
                found[1] for line in lines if (found := re.search(r"successfully on port (\d+)", line))
            )
            self.url = f"http://127.0.0.1:{port}/session"
            # No sandbox: Chromium refuses one to root, whom containers often run as.
            flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"]
            flags += ["--disable-gpu", f"--user-data-dir={profile}"]
            options = {"binary": shutil.which("chromium"), "args": flags}
            phone = width < 600
            metrics = {"width": width, "height": height, "pixelRatio": 1, "mobile": phone, "touch": phone}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
            capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            started = self.call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
            self.url += f"/{started['sessionId']}"
        except BaseException:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.communicate(timeout=10)

    def call(self, method, path, body=None):
        """Send one command; the driver's error becomes a RuntimeError."""
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def reload(self):
        self.call("POST", "/refresh")

    def run(self, script, *arguments):
        """The value of a JavaScript function's body."""
        return self.call("POST", "/execute/sync", {"script": script, "args": arguments})

    def click(self, selector):
        """A real click on the first element that the CSS selector finds."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        self.call("POST", f"/element/{found}/click")

    def press(self, *keys):
        """Press and release keys, one after the other, where the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def wait(self, script, *arguments, seconds=60):
        """Wait until a JavaScript function's body gives something true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(f"still not: {script}")
            time.sleep(0.05)
        return value

    def log(self):
        """What the page wrote to the console since the last time, errors included."""
        return self.call("POST", "/se/log", {"type": "browser"})

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))
