"""Pages as browsers have them: their elements, and a real browser that a test steers (Chrome DevTools Protocol)."""

import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import closing, contextmanager
from html.parser import HTMLParser

import pytest
import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
needed = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Parsed(HTMLParser):
    """What a browser would make of HTML: tags, attributes and text. Fails on tags that do not close in order."""

    VOID = ("meta", "link", "input", "img", "br", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), {}, ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text


def dom(page, user, *flags, wait=20_000):
    """The document that the page in a file has become after its scripts have run."""
    command = [CHROMIUM, *QUIET, *flags, f"--user-data-dir={user}", f"--virtual-time-budget={wait}", "--dump-dom"]
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=True).stdout


class Page:
    """A page whose scripts are run and whose keys are pressed from here."""

    def __init__(self, address):
        self._socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self._numbers = itertools.count(1)

    def close(self):
        self._socket.close()

    def call(self, method, **given):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while (answer := json.loads(self._socket.recv())).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def value(self, script):
        """What an expression, or the promise that it is, comes to."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, seconds):
        """Until an expression is true; its value."""
        end = time.monotonic() + seconds
        while not (found := self.value(script)):
            assert time.monotonic() < end, f"not true after {seconds} s: {script}"
            time.sleep(0.2)
        return found

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)


def _pages(listing):
    with urllib.request.urlopen(listing) as answer:  # noqa: S310
        return [of["webSocketDebuggerUrl"] for of in json.load(answer) if of["type"] == "page"]


@contextmanager
def opened(url, user, size="1280,1000"):
    """A `Page` on an address; its browser, whose profile is the folder `user`, ends with it."""
    command = [CHROMIUM, *QUIET, f"--window-size={size}", f"--user-data-dir={user}", "--remote-debugging-port=0", url]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port, end = user / "DevToolsActivePort", time.monotonic() + 60
        while not (port.exists() and port.read_text()):
            assert time.monotonic() < end, "the browser does not open its port"
            time.sleep(0.1)
        listing = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        while not (addresses := _pages(listing)):
            time.sleep(0.1)
        with closing(Page(addresses[0])) as page:
            yield page
    finally:
        browser.kill()
        browser.wait()
