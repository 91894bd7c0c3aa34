"""A headless chromium, driven over its DevTools protocol as a person would: clicks, typed text, chosen files.

The protocol is JSON over a WebSocket (https://chromedevtools.github.io/devtools-protocol); what a page shows is asked
of it in JavaScript.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60.0  # for what a page is waited for


class Browser:
    """One page in one browser of its own, ended with the `with` block.

    Args:
        profile: an empty folder for the browser's own files.
    """

    def __init__(self, profile: Path) -> None:
        self._profile, self._loop, self._number = profile, asyncio.new_event_loop(), 0
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        profile.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(profile)}  # where it leaves a folder when it is ended
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)

    def __enter__(self) -> "Browser":
        said = self._profile / "DevToolsActivePort"
        until = time.monotonic() + SECONDS
        while not (said.is_file() and said.read_text().count("\n")):
            assert self._process.poll() is None, "chromium ended"
            assert time.monotonic() < until, "chromium opened no port"
            time.sleep(0.05)
        self._loop.run_until_complete(self._connect(said.read_text().split("\n")[0]))
        return self

    async def _connect(self, port: str) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            page = next(target for target in await answer.json() if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.terminate()
        self._process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), SECONDS))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while (message := await self._socket.receive_json()).get("id") != self._number:
            pass  # an event that nobody asked for
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def look(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until a JavaScript expression is true."""
        until = time.monotonic() + SECONDS
        while not self.look(script):
            assert time.monotonic() < until, f"{script}\nnever came; the page says:\n{self.text()}"
            time.sleep(0.1)

    def text(self) -> str:
        """All text that can be seen."""
        return str(self.look("document.body.innerText"))

    def open(self, url: str, width: int, height: int = 900) -> None:
        """A page in a window of so many CSS pixels; a phone's where it is narrow."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def click(self, element: str) -> None:
        """The mouse on an element's middle; `element` is a JavaScript expression."""
        self.wait_for(f"!!({element})")
        self.look(f"({element}).scrollIntoView({{block: 'center'}})")
        x, y = self.look(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(({element}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, element: str, text: str) -> None:
        """Text into a field, then Enter."""
        self.click(element)
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def choose_file(self, selector: str, path: Path) -> None:
        """A file for an `<input type=file>`, which is found by its CSS selector."""
        self.wait_for(f"!!document.querySelector({json.dumps(selector)})")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
