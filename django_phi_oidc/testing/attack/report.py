"""Outcomes of attacks, rendered as text, JSON or JUnit XML. Does not import Django."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree

AttackResult = Literal["held", "failed", "accepted by choice", "not applicable"]


class AttackEnded(Exception):
    """An attack ended with another result than `held`."""

    def __init__(self, result: AttackResult, detail: str) -> None:
        """detail: what was observed, without any token, sub or claim value."""
        super().__init__(detail)
        self.result = result
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackOutcome:
    """The outcome of one attack."""

    code: str
    """The code of the attacked rule, as in docs/reference/codes.md, or the attack's own name."""
    id: str
    """Distinguishes the attacks of one code; empty for the first."""
    result: AttackResult
    detail: str = ""
    """The fault, the setting that allows the attack, or the reason why it is not applicable."""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The code and the id."""
        return format_attack_name(self.code, self.id)


def format_attack_name(code: str, id: str) -> str:  # noqa: A002 -- the name of the field
    """Return the name of an attack: the code and the id."""
    if id:
        return f"{code} ({id})"
    return code


def render_line(outcome: AttackOutcome) -> str:
    """Return the outcome as one line of text."""
    line = f"  {outcome.result:<18}  {outcome.name}"
    if outcome.detail:
        line += f": {outcome.detail}"
    return line


def render_total(outcomes: Iterable[AttackOutcome]) -> str:
    """Return the number of outcomes per result as text."""
    counts = Counter(outcome.result for outcome in outcomes)
    order: tuple[AttackResult, ...] = ("held", "failed", "accepted by choice", "not applicable")
    return ", ".join(f"{counts[result]} {result}" for result in order) + "."


def render_json(outcome: AttackOutcome) -> str:
    """Return the outcome as a JSON object on one line."""
    return json.dumps(asdict(outcome))


def parse_json(text: str) -> AttackOutcome:
    """Return the outcome that `render_json` wrote."""
    return AttackOutcome(**json.loads(text))


def render_junit(outcomes: Sequence[AttackOutcome]) -> bytes:
    """Return a JUnit report. `accepted by choice` and `not applicable` are reported as skipped,
    with the detail.
    """
    suite = ElementTree.Element(
        "testsuite",
        name="phi_oidc attack",
        tests=str(len(outcomes)),
        failures=str(sum(outcome.result == "failed" for outcome in outcomes)),
        skipped=str(
            sum(outcome.result in ("accepted by choice", "not applicable") for outcome in outcomes)
        ),
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="phi_oidc.attack",
            name=outcome.name,
            time=f"{outcome.seconds:.3f}",
        )
        if outcome.result != "held":
            if outcome.result == "failed":
                kind = "failure"
            else:
                kind = "skipped"

            if kind == "failure":
                message = outcome.detail
            else:
                message = f"{outcome.result}: {outcome.detail}"

            ElementTree.SubElement(case, kind, message=message)
    report: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return report
