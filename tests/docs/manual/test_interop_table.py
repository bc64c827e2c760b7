"""The page about tested providers has one row for each profile of the tests."""

from django_phi_oidc.contrib.doctor.known_providers import PROVIDERS_BY_SLUG
from tests.docs.manual.interop_table import PAGE, build_rows, regenerate
from tests.integration.interop.provider_profiles import FEDERATED_PROFILE, PROFILES


def test_page_has_the_table_of_the_profiles() -> None:
    text = PAGE.read_text()
    assert regenerate(text) == text
    assert len(list(build_rows())) == 1 + len(PROFILES) + 1


def test_each_known_provider_has_a_row_or_a_sentence_below() -> None:
    rows = (*PROFILES, FEDERATED_PROFILE)
    slugs = {row.slug for row in rows}
    assert len(rows) == len(slugs) == len({row.name for row in rows})
    rest = PAGE.read_text().partition("<!-- end -->")[2]
    without = [known.name for slug, known in PROVIDERS_BY_SLUG.items() if slug not in slugs]
    assert without == ["GesundheitsID"]
    assert f"- {without[0]} has no row" in rest


def test_row_without_a_result_has_a_reason() -> None:
    reasons = [
        reason for row in PROFILES for reason in (row.no_step_up, row.no_refresh, *row.live_tokens.values()) if reason
    ]
    assert min(map(len, reasons)) > 10
    assert "none: |" not in "".join(build_rows())
