"""A person with a browser at the chat page, and the answers that the tests show to one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.support.upstream import Say

ARTIFACTS = Path(__file__).parent.parent / ".artifacts"
AXE = Path(__file__).parent.parent / "clients" / "node_modules" / "axe-core" / "axe.min.js"

WAIT_MS = 20_000
DESKTOP = {"width": 1180, "height": 820}
NARROW = {"width": 320, "height": 640}

SAMPLE = """A **server-sent event stream** is one ordinary HTTP response that never quite ends: the server \
keeps writing small blocks of text, and the browser hands each of them to your code as it arrives.

# When to choose them

- The talk goes mostly *one way*, from server to reader
- You want reconnecting for free, with `Last-Event-ID`

| | Server-sent events | Web sockets |
|---|---|---:|
| Direction | server to browser | both |
| Reconnects | by itself | by hand |

```js
source.onmessage = ({ data }) => {
  output.append(JSON.parse(data).content); // one piece of the answer, as soon as it has been written
};
```

> Choose the simplest thing that carries the message.

For the details, see [the standard](https://html.spec.whatwg.org/).
"""

ATTACKS = """<script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2">

Inline <b onclick="window.hacked = 3">bold</b> and <svg onload="window.hacked = 4"> and <br>a break.

[script](javascript:window.hacked=5) [data](data:text/html,<script>window.hacked=6</script>) [home](/ask/1)

<a href="javascript:window.hacked=7">raw</a> ![pixel](https://evil.example/pixel.png?secret=1 "title")

<iframe src="https://evil.example/"></iframe><form action="https://evil.example/"><input name=q></form>

[quote](https://example.org/"onmouseover="window.hacked=8) <https://example.org/?a=<script>>

```"><script>window.hacked=9</script>
</code></pre><script>window.hacked=10</script>
```

<style>body { display: none }</style>

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.hacked=11&gt;">
"""


class Reader:
    """A browser context at the page, with every fault that it meets."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.faults: list[str] = []
        self.offline = False
        self.page = self._open(url)

    def _open(self, url: str) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self._check_host(request.url, url))
        page.on("console", lambda message: self._check_console(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.goto(f"{url}/")
        return page

    def _check_host(self, address: str, url: str) -> None:
        if not address.startswith(f"{url}/"):
            self.faults.append(f"a request to another host: {address}")

    def _check_console(self, kind: str, text: str) -> None:
        # Chromium itself tells of every HTTP error and every lost connection.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.faults.append(f"{kind}: {text}")

    def ask(self, question: str) -> None:
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    @property
    def answers(self) -> Any:
        return self.page.locator(".answer")

    @property
    def prose(self) -> Any:
        return self.page.locator(".answer > .prose").last

    def wait_for_end(self) -> None:
        expect(self.page.locator("#send")).to_be_visible(timeout=WAIT_MS)
        expect(self.answers.last).to_have_attribute("aria-busy", "false", timeout=WAIT_MS)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)


Visit = Callable[..., Reader]


def say(text: str, size: int = 12) -> list[Say]:
    """An answer in pieces."""
    return [Say(text[start : start + size]) for start in range(0, len(text), size)]


def check(reader: Reader, name: str) -> None:
    """Take a picture for people, and let axe look at the page for those who cannot see it."""
    ARTIFACTS.mkdir(exist_ok=True)
    reader.page.screenshot(path=ARTIFACTS / f"page-{name}.png")
    assert AXE.exists(), "run `npm ci` in tests/clients"
    reader.page.evaluate(AXE.read_text())  # by the debugger's door, which the page's policy does not guard
    found = reader.page.evaluate("axe.run()")
    violations = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]
    assert violations == []
    width = reader.page.viewport_size
    assert width is not None
    assert reader.page.evaluate("document.documentElement.scrollWidth") == width["width"]
