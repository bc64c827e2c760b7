"""The page for troubleshooting has the cures that logs and pages name, and leads to each symptom."""

import re

from django_phi_oidc.oidc.remedies import REMEDIES
from django_phi_oidc.sessions.models import EndReason
from tests.support.manual_blocks import PAGES

TEXT = PAGES["troubleshooting"].read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_remedies_in_the_table_by_code_are_those_of_the_log() -> None:
    rows = re.findall(r"^\| (`[a-z_` ]+`) \| (.+) \|$", SECTIONS["By code"], re.MULTILINE)
    codes = [re.findall(r"`([a-z_ ]+)`", cell) for cell, _ in rows]
    remedies = {code: remedy for cell, (_, remedy) in zip(codes, rows, strict=True) for code in cell}
    assert remedies.items() <= REMEDIES.items()
    assert len(remedies) > 40
    assert codes == sorted(sorted(cell) for cell in codes)


def test_first_list_leads_to_each_section_about_a_symptom() -> None:
    linked = re.findall(r"\]\(#([\w-]+)\)", TEXT.partition("\n## ")[0])
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in SECTIONS}
    further = {
        "from-the-reference-to-the-reason",
        "the-log",
        "react-to-it-in-your-project",
        "customize-the-pages",
    }
    assert set(linked) == anchors - further


def test_reasons_of_an_end_that_surprise_a_user_exist() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", SECTIONS["A session ends at once"], re.MULTILINE)
    reasons = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    assert reasons <= set(EndReason.values)
    assert set(EndReason.values) - reasons == {
        *("logout", "row_deleted", "subject_unlinked", "administrator", "account_owner", "refresh_mismatch"),
    }, "these are no surprise, or an administrator or the user made them"
