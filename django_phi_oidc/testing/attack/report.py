"""What came of each attack, and how that is told: as a table, as JSON, as JUnit XML. No Django."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree

AttackResult = Literal["held", "failed", "accepted by choice", "not applicable"]


class AttackEnded(Exception):
    """An attack is over, and not as it should be."""

    def __init__(self, result: AttackResult, detail: str) -> None:
        """told: what was seen, in words that hold no token, sub or value."""
        super().__init__(detail)
        self.result, self.detail = result, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackOutcome:
    """What came of one attack."""

    code: str
    """The rule that it is about, as docs/reference/codes.md has it, or the attack's own name."""
    id: str
    """Which of that rule's attacks; empty for the first."""
    result: AttackResult
    detail: str = ""
    """What was seen, where that is to be told: a fault, the option by which it is a choice, why there is nothing."""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The code, and which attack of it."""
        return format_attack_name(self.code, self.id)


def format_attack_name(code: str, id: str) -> str:  # noqa: A002 -- as the field is named
    """Return what an attack is called."""
    return f"{code} ({id})" if id else code


def render_line(outcome: AttackOutcome) -> str:
    """Return the table's row."""
    return f"  {outcome.result:<18}  {outcome.name}" + (f": {outcome.detail}" if outcome.detail else "")


def render_total(outcomes: Iterable[AttackOutcome]) -> str:
    """Return how many ended how."""
    counted = Counter(outcome.result for outcome in outcomes)
    order: tuple[AttackResult, ...] = ("held", "failed", "accepted by choice", "not applicable")
    return ", ".join(f"{counted[result]} {result}" for result in order) + "."


def render_json(outcome: AttackOutcome) -> str:
    """Return the outcome as an object on one line."""
    return json.dumps(asdict(outcome))


def parse_json(text: str) -> AttackOutcome:
    """Return what as_json wrote."""
    return AttackOutcome(**json.loads(text))


def render_junit(outcomes: Sequence[AttackOutcome]) -> bytes:
    """Return a JUnit report: a failure is one; what is accepted by choice or not applicable is skipped, and says so."""
    suite = ElementTree.Element(
        "testsuite",
        name="phi_oidc attack",
        tests=str(len(outcomes)),
        failures=str(sum(outcome.result == "failed" for outcome in outcomes)),
        skipped=str(sum(outcome.result in ("accepted by choice", "not applicable") for outcome in outcomes)),
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname="phi_oidc.attack", name=outcome.name, time=f"{outcome.seconds:.3f}"
        )
        if outcome.result != "held":
            kind = "failure" if outcome.result == "failed" else "skipped"
            told = outcome.detail if kind == "failure" else f"{outcome.result}: {outcome.detail}"
            ElementTree.SubElement(case, kind, message=told)
    report: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return report
