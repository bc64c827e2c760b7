"""The blocks of code in the pages: `from tests.support.manual_blocks import block`."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path for path in (ROOT / "docs").rglob("*.md") if path.stem != "index"}
PAGES["README"] = ROOT / "README.md"
FENCE = re.compile(r"^ *```(?P<language>\S+)$", re.MULTILINE)
MARKED = re.compile(
    r"^ *<!-- (?P<how>tested|tested by|shown): (?P<what>[^\n]+) -->\n *```(?P<language>\S+)\n(?P<block>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


def block(page: str, name: str) -> str:
    """Return the one block of that page that is marked so, without what it is indented by."""
    (found,) = (hit["block"] for hit in MARKED.finditer(PAGES[page].read_text()) if hit["what"] == name)
    indent = len(found) - len(found.lstrip(" "))
    return "".join(line[indent:] for line in found.splitlines(keepends=True))


def commands(page: str, name: str) -> list[list[str]]:
    """Return what follows each `$`, in words; `&&` makes two of it."""
    lines = [line.removeprefix("$ ") for line in block(page, name).splitlines() if line.startswith("$ ")]
    return [shlex.split(command) for line in lines for command in line.split(" && ")]
