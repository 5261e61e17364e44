"""Headless Chromium, for what only a browser can tell: whether a page fits, and what it looks like."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import require_programs

# Another document of the same origin: the page's own policy holds in it, and the wrapper may measure it. Chromium's own
# windows are never narrower than about 500 pixels, a phone's page is.
_FRAME = (
    '<iframe id="{name}" srcdoc="{page}" style="flex: none; border: 0; width: {width}px; height: {height}px"></iframe>'
)

_MEASURE = """
<script>
onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, view = frame.contentWindow;
    const box = node => node.getBoundingClientRect();
    const main = box(page.querySelector("main"));
    // The head of a table whose rows are cards.
    const hidden = node => node.closest("thead") && view.getComputedStyle(node.closest("thead")).position == "absolute";
    const outside = [...page.querySelectorAll("main *")].filter(node => !node.closest("svg *") && !hidden(node)
      && box(node).width && (box(node).right > main.right + 1 || box(node).left < main.left - 1
        || node instanceof view.HTMLElement && node.clientWidth && node.scrollWidth > node.clientWidth + 1));
    const touching = [];
    for (const plot of page.querySelectorAll("svg")) {
      const labels = [...plot.querySelectorAll("text")].filter(text => !text.closest(".mark"));
      labels.forEach((one, place) => labels.slice(place + 1).forEach(other => {
        const a = box(one), b = box(other);
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 0 && high > 3) touching.push(one.textContent + " | " + other.textContent);
      }));
      for (const text of labels) {
        const a = box(text), b = box(plot);
        if (a.right > b.right + 1 || a.left < b.left - 1 || a.bottom > b.bottom + 3)
          touching.push(text.textContent + " | edge");
      }
    }
    const small = [...page.querySelectorAll("svg text")].map(text => box(text).height);
    found[frame.id] = {
      scroll: page.documentElement.scrollWidth, client: page.documentElement.clientWidth,
      outside: outside.map(node => node.tagName + " " + node.textContent.slice(0, 40)), touching,
      smallest: Math.min(1000, ...small), loaded: view.performance.getEntriesByType("resource").length,
      cards: view.getComputedStyle(page.querySelector(".cards tr") || page.body).display,
      hacked: view.hacked === true,
    };
  }
  document.body.setAttribute("data-found", JSON.stringify(found));
};
</script>
"""


@dataclass(frozen=True, slots=True)
class Frame:
    page: str
    width: int
    height: int = 900

    def html(self, name: str) -> str:
        return _FRAME.format(name=name, page=html.escape(self.page), width=self.width, height=self.height)


def measure(frames: Mapping[str, Frame], folder: Path) -> tuple[dict[str, Any], str]:
    """Lay pages out, each at its width.

    Returns:
        For each name what was measured, and what the browser wrote to its console.
    """
    wrapper = _wrapper(frames, folder, _MEASURE)
    output, console = chromium(folder, "--enable-logging=stderr", "--dump-dom", wrapper.as_uri())
    attribute = re.search(r'data-found="([^"]*)"', output)
    assert attribute, output[-500:]
    messages = [line for line in console.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(attribute[1])), "\n".join(messages)


def photograph(frames: Mapping[str, Frame], folder: Path) -> Path:
    """Take a picture of pages side by side, from the left edge on without gaps."""
    wrapper = _wrapper(frames, folder, "")
    width, height = sum(frame.width for frame in frames.values()), max(frame.height for frame in frames.values())
    picture = folder / "picture.png"
    chromium(
        folder, f"--screenshot={picture}", f"--window-size={width},{height}", "--hide-scrollbars", wrapper.as_uri()
    )
    return picture


def print_page(page: str, folder: Path) -> bytes:
    """Print a page to PDF."""
    path, printed = folder / "printed.html", folder / "printed.pdf"
    path.write_text(page, encoding="utf-8")
    chromium(folder, f"--print-to-pdf={printed}", "--no-pdf-header-footer", path.as_uri())
    return printed.read_bytes()


def chromium(folder: Path, *arguments: str) -> tuple[str, str]:
    """Run the browser once. Return its stdout and stderr."""
    require_programs("chromium", package="chromium")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    result = subprocess.run(
        [*command, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return result.stdout, result.stderr


def _wrapper(frames: Mapping[str, Frame], folder: Path, script: str) -> Path:
    body = "".join(frame.html(name) for name, frame in frames.items())
    path = folder / "wrapper.html"
    style = "margin: 0; display: flex; align-items: flex-start"
    page = f'<!DOCTYPE html><meta charset="utf-8"><body style="{style}">{body}{script}</body>'
    path.write_text(page.replace("<iframe ", '<iframe scrolling="no" '), encoding="utf-8")
    return path
