"""PKCS#11 URIs: accepted ones, and ones that differ in one thing. Spec: RFC 7512."""

from pathlib import Path

import pytest

from django_phi_oidc.audit.log.pkcs11_uri import PKCS11Key, parse_pkcs11_uri
from django_phi_oidc.errors import KeyMissing

MODULE = "/usr/lib/hsm.so"
URI = f"pkcs11:token=portal;object=audit-log;type=private?module-path={MODULE}"


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        (URI, PKCS11Key(module_path=MODULE, token="portal", label="audit-log")),
        (f"{URI}&pin-value=12%2634", PKCS11Key(module_path=MODULE, token="portal", label="audit-log", pin="12&34")),
        (
            f"pkcs11:serial=0a1b;id=%00%ff?module-path={MODULE}",
            PKCS11Key(module_path=MODULE, serial="0a1b", key_id=b"\x00\xff"),
        ),
        (
            f"pkcs11:token=The%20Software%20PKCS%2311;object=%C3%A4?module-path={MODULE}",
            PKCS11Key(module_path=MODULE, token="The Software PKCS#11", label="ä"),
        ),
    ],
    ids=["labels", "PIN", "serial and id", "percent-encoded"],
)
def test_uri_is_parsed(uri: str, key: PKCS11Key) -> None:
    assert parse_pkcs11_uri(uri) == key


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "{}"])
def test_pin_is_read_from_its_file(form: str, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("1234\n")
    assert parse_pkcs11_uri(f"{URI}&pin-source={form.format(tmp_path / 'pin')}").pin == "1234"
    with pytest.raises(KeyMissing, match=r"The file of its PIN can't be read\.$"):
        parse_pkcs11_uri(f"{URI}&pin-source={form.format(tmp_path / 'none')}")


REFUSED = {
    "another scheme": URI.replace("pkcs11:", "pkcs12:"),
    "public key": URI.replace("private", "public"),
    "no token": URI.replace("token=portal;", ""),
    "no key": URI.replace(";object=audit-log", ""),
    "no module": URI.partition("?")[0],
    "relative module": URI.replace("=/usr", "=usr"),
    "unknown attribute": URI.replace("?", ";slot-id=1?"),
    "unknown option": f"{URI}&x-secret=1",
    "repeated attribute": URI.replace("?", ";token=secret?"),
    "attribute without a value": URI.replace("?", ";serial?"),
    "space": URI.replace("portal", "a portal"),
    "broken percent-encoding": URI.replace("portal", "%zz"),
    "not UTF-8": URI.replace("portal", "%ff"),
    "two PINs": f"{URI}&pin-value=secret&pin-source=file:/pin",
    "PIN from a program": f"{URI}&pin-source=|/bin/secret",
}


@pytest.mark.parametrize("uri", REFUSED.values(), ids=REFUSED)
def test_other_uri_is_refused_without_its_values(uri: str) -> None:
    assert parse_pkcs11_uri(URI)
    with pytest.raises(KeyMissing, match="is no usable PKCS#11 URI") as refused:
        parse_pkcs11_uri(uri)
    assert "secret" not in str(refused.value)


def test_pin_is_not_in_the_repr() -> None:
    assert "1234" not in repr(parse_pkcs11_uri(f"{URI}&pin-value=1234"))
