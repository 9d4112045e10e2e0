"""Chromium, driven by its own chromedriver over the WebDriver protocol: JSON by HTTP."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element's id


class Browser:
    def __init__(self, port: int, profile: Path):
        self.url = f"http://127.0.0.1:{port}/session"
        self._wait()
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                     "--disable-dev-shm-usage", f"--user-data-dir={profile}"],
            "perfLoggingPrefs": {"enableNetwork": True},
        }  # fmt: skip
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.url += f"/{made['sessionId']}"

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(self.url.replace("session", "status"), timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _call(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None

    def open(self, path: Path) -> None:
        self.logs("performance"), self.logs("browser")  # what came before is not this page's
        self._call("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str, *arguments):
        """What `return …` in the page gives."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """As a user does: the element must be there to be hit."""
        using = {"using": "css selector", "value": selector}
        element = self._call("POST", "/element", using)[ELEMENT]
        self.run("arguments[0].scrollIntoView({block: 'center'})", {ELEMENT: element})
        self._call("POST", f"/element/{element}/click", {})

    def type(self, selector: str, text: str) -> None:
        using = {"using": "css selector", "value": selector}
        element = self._call("POST", "/element", using)[ELEMENT]
        self._call("POST", f"/element/{element}/value", {"text": text})

    def press(self, key: str) -> None:
        """To whatever has the focus."""
        element = self._call("GET", "/element/active")[ELEMENT]
        self._call("POST", f"/element/{element}/value", {"text": key})

    def command(self, name: str, **parameters) -> dict:
        """One of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def view(self, width: int, height: int, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def logs(self, kind: str) -> list[dict]:
        """Since the last time: ``browser``, the console; ``performance``, DevTools events."""
        return self._call("POST", "/se/log", {"type": kind})

    def requests(self) -> list[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.logs("performance")]
        sent = [e for e in events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def close(self) -> None:
        self._call("DELETE", "")


@contextlib.contextmanager
def browser(folder: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = {"HOME": str(folder), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    with open(folder / "chromedriver.log", "wb") as log:
        driver = subprocess.Popen(
            [DRIVER, f"--port={port}"], env=home, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        session = Browser(port, folder / "profile")
        try:
            yield session
        finally:
            session.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)
