"""A witness of `AUDIT["witnesses"]`, and the quorum: valid and invalid declarations."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_phi_oidc.audit import conf as audit_conf
from django_phi_oidc.audit.declaration import parse_witness
from django_phi_oidc.config.sections import list_mistakes
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.phi_oidc_settings import override_phi_oidc

KEY = "witness.example/w1+00000000+BAAA"
VALID = {"key": KEY, "url": "https://witness.example/w1"}
REFUSED: dict[str, tuple[Any, str]] = {
    "no dictionary": (KEY, "must be a dictionary"),
    "no key": ({"url": VALID["url"]}, "lacks key"),
    "no url": ({"key": KEY}, "lacks url"),
    "key without its id": ({**VALID, "key": "secret+BAAA"}, "['key']"),
    "key as bytes": ({**VALID, "key": b"secret"}, "['key']"),
    "plain http": ({**VALID, "url": "http://witness.example/secret"}, "['url']"),
    "password in the url": ({**VALID, "url": "https://u:secret@witness.example/"}, "['url']"),
    "query in the url": ({**VALID, "url": "https://witness.example/?secret"}, "['url']"),
    "ca_bundle as a number": ({**VALID, "ca_bundle": 1}, "['ca_bundle']"),
    "unknown option": ({**VALID, "vkey": "secret"}, "no option vkey"),
}


@pytest.mark.parametrize(
    "raw",
    [VALID, {**VALID, "url": "http://127.0.0.1:8080/w"}, {**VALID, "ca_bundle": Path("/ca.pem")}],
    ids=["https", "http on loopback", "with a CA"],
)
def test_valid_witness_is_parsed(raw: dict[str, Any]) -> None:
    witness = parse_witness("w1", raw)
    assert (witness.name, witness.key, witness.url) == ("w1", KEY, raw["url"])


@pytest.mark.parametrize(("raw", "named"), REFUSED.values(), ids=REFUSED)
def test_wrong_witness_is_refused_with_the_name_of_the_option(raw: Any, named: str) -> None:
    with pytest.raises(DeclarationInvalid) as refused:
        parse_witness("w1", raw)
    assert "AUDIT['witnesses']['w1']" in str(refused.value)
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("quorum", [-1, True, "2", 1.5])
def test_quorum_is_a_number(quorum: Any) -> None:
    assert list(list_mistakes({"AUDIT": {"quorum": 2}})) == list(list_mistakes({}))
    assert "AUDIT['quorum'] must be a number of witnesses." in "\n".join(list_mistakes({"AUDIT": {"quorum": quorum}}))


@pytest.mark.parametrize(
    ("count", "declared", "quorum"), [(0, None, 0), (1, None, 1), (2, None, 2), (3, None, 2), (3, 0, 0)]
)
def test_quorum_is_more_than_half_by_default(count: int, declared: int | None, quorum: int) -> None:
    audit = {"witnesses": {f"w{number}": VALID for number in range(count)}, "quorum": declared}
    if declared is None:
        del audit["quorum"]
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT=audit)):
        assert audit_conf.witness_quorum() == quorum
