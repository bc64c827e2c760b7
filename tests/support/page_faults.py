"""What a reader would see at once and a status code does not show: cut text, overflow, codes where words belong."""

import re
from typing import Any

from django_phi_oidc.audit.actions import Action
from tests.support.accessibility import AXE

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
TECHNICAL = (
    "code, pre, kbd, samp, textarea, script, style, title, .technical, [data-technical], details:not([open]),"
    ".material-symbols-outlined"
)
"""Selector of parts that may show codes. The last one has names of icons."""
_ACTIONS = "|".join(sorted((re.escape(action) for action in Action), key=len, reverse=True))
CODES = {
    "action code": re.compile(rf"(?<![\w.])(?:{_ACTIONS})(?![\w.])"),
    "code": re.compile(r"(?<![\w./@:-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w./@(-])"),
    "generated user name": re.compile(r"\bphi_[0-9a-z]{8,}"),
    "UUID": re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
    "model object": re.compile(r"\b\w+ object \("),
    "template syntax": re.compile(r"\{\{|\{%|%\(\w+\)s"),
}

_CUT = """within => {
  const root = document.querySelector(within), found = [], text = node => node.textContent.trim().slice(0, 60);
  for (const node of root.querySelectorAll("td, th, dt, dd, li, p, label, h1, h2, h3, figcaption, a, button")) {
    const style = getComputedStyle(node);
    if (!node.checkVisibility() || style.display.startsWith("inline") || style.position === "absolute") continue;
    if (node.closest(".visually-hidden, pre")) continue;
    if (node.clientWidth > 1 && node.scrollWidth > node.clientWidth + 1) found.push(`${node.tagName}: ${text(node)}`);
  }
  return found;
}"""
_SCROLLED = """within => [...document.querySelector(within).querySelectorAll("*")].filter(node => {
  const overflow = getComputedStyle(node).overflowX;
  return node.checkVisibility() && node.tagName !== "PRE" && /auto|scroll/.test(overflow)
    && node.scrollWidth > node.clientWidth + 1;
}).map(node => `${node.tagName}.${node.className}: ${node.scrollWidth} in ${node.clientWidth}`)"""
_TEXT = """([within, technical]) => {
  const lines = [], walker = document.createTreeWalker(document.querySelector(within), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (text && !parent.closest(technical) && parent.checkVisibility()) lines.push(text);
  }
  return lines;
}"""


def list_layout_faults(page: Any, *, width: int, within: str) -> list[str]:
    """Return what does not fit. A table may be scrolled in a narrow window, but not in one of 1280 pixels."""
    faults = []
    if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
        faults.append(f"the page is {wide} pixels wide")
    faults += [f"cut: {text}" for text in page.evaluate(_CUT, within)]
    if width >= 1280:
        faults += [f"scrolls: {text}" for text in page.evaluate(_SCROLLED, within)]
    return faults


def list_codes(page: Any, *, within: str) -> list[str]:
    """Return the codes that are shown where a word belongs."""
    found = []
    for line in page.evaluate(_TEXT, [within, TECHNICAL]):
        found += [f"{kind}: {match[0]}" for kind, pattern in CODES.items() for match in pattern.finditer(line)]
    return list(dict.fromkeys(found))


def list_accessibility_faults(page: Any, *, within: str) -> list[str]:
    """Return the violations of WCAG 2.2 AA that axe-core finds."""
    page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"], "preload": False, "runOnly": {"type": "tag", "values": WCAG}}
    results = page.evaluate("([within, options]) => axe.run(within, options)", [within, options])
    return [f"{rule['id']}: {node['html'][:160]}" for rule in results["violations"] for node in rule["nodes"]]
