"""The pages about delivery match the code."""

import re
from pathlib import Path
from typing import Any

from django_phi_oidc.contrib.siem import delivery
from django_phi_oidc.contrib.siem.declaration import parse_sink

DOCS = Path(__file__).parents[3] / "docs"


def in_backticks(name: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (DOCS / name).read_text()))


def test_every_fault_that_stops_a_sink_is_documented() -> None:
    assert in_backticks("how-to/siem.md") >= delivery.STOPPING_FAULTS
    assert in_backticks("reference/events.md") >= delivery.STOPPING_FAULTS


def test_every_alert_rule_is_documented() -> None:
    source = Path(delivery.__file__).read_text()
    assert set(re.findall(r'"(delivery_\w+)"', source)) <= in_backticks("reference/events.md")


def test_example_of_the_guide_is_a_valid_declaration() -> None:
    text = (DOCS / "how-to" / "siem.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block
    namespace: dict[str, Any] = {"Path": Path}
    exec(block[1].replace("    ...\n", ""), namespace)
    sinks = {name: parse_sink(name, raw) for name, raw in namespace["PHI_OIDC"]["SIEM"].items()}
    assert {sink.type for sink in sinks.values()} == {"syslog", "https", "file"}
