"""E106, W106 and W047: the files of a client certificate, and the end of its validity."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks

from django_phi_oidc._internal import clock
from tests.support.tls import write_client_certificate

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


@pytest.fixture
def declare(settings: Any) -> Callable[..., None]:
    """Return a function that declares mutual TLS with these files."""

    def declare(certificate: Path, key: Path | None = None) -> None:
        options = {
            "client_secret": "",
            "token_endpoint_auth_method": "tls_client_auth",
            "client_certificate": certificate,
            "client_certificate_key": key,
        }
        providers = {"default": {**settings.PHI_OIDC["PROVIDERS"]["default"], **options}}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}

    return declare


def find_messages(number: str, *, deploy: bool = False) -> list[CheckMessage]:
    return [
        message for message in run_checks(include_deployment_checks=deploy) if message.id == f"django_phi_oidc.{number}"
    ]


def test_unusable_client_certificate_is_reported(declare: Callable[..., None], tmp_path: Path) -> None:
    """E106."""
    path = write_client_certificate(tmp_path / "client.pem")
    declare(path)
    assert find_messages("E106") == []
    chain, separator, key = path.read_text().partition("-----BEGIN PRIVATE KEY-----")
    (tmp_path / "key.pem").write_text(separator + key)
    path.write_text(chain)
    declare(path, tmp_path / "key.pem")
    assert find_messages("E106") == []
    other = write_client_certificate(tmp_path / "other.pem")
    for certificate, key_file, text in (
        (path, None, "client_certificate is no PEM with a certificate and its unencrypted private key."),
        (path, other, "client_certificate_key is not the key of client_certificate."),
        (
            tmp_path / "key.pem",
            None,
            "client_certificate is no PEM with a certificate and its unencrypted private key.",
        ),
        (tmp_path / "missing.pem", None, "client_certificate cannot be read."),
        (path, tmp_path / "missing.pem", "client_certificate cannot be read."),
    ):
        declare(certificate, key_file)
        (message,) = find_messages("E106")
        assert message.msg == f"Provider 'default': {text}"


def test_client_certificate_is_reported_for_30_days_before_its_end_and_after_it(
    declare: Callable[..., None], tmp_path: Path
) -> None:
    """W106."""
    expires_at = datetime(2031, 6, 30, 12, tzinfo=UTC)
    declare(write_client_certificate(tmp_path / "client.pem", expires_at=expires_at))
    for days_left, is_reported in ((31, False), (30, False), (29, True), (-1, True)):
        with clock.override_clock(lambda days=days_left: expires_at - timedelta(days=days)):
            messages = find_messages("W106")
            assert find_messages("E106") == []
        assert bool(messages) == is_reported, days_left
        assert all("2031-06-30" in message.msg for message in messages)


def test_key_of_the_client_certificate_that_every_user_can_open_is_reported_on_deployment(
    declare: Callable[..., None], tmp_path: Path
) -> None:
    """W047."""
    path = write_client_certificate(tmp_path / "client.pem")
    key = write_client_certificate(tmp_path / "key.pem")
    for certificate, key_file, holder in ((path, None, path), (path, key, key)):
        declare(certificate, key_file)
        path.chmod(0o644)
        holder.chmod(0o640)
        assert find_messages("W047", deploy=True) == []
        holder.chmod(0o644)
        assert [message.hint for message in find_messages("W047", deploy=True)] == [f"chmod 0600 {holder}"]
