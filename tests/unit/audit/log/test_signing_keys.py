"""The key that signs checkpoints: in PEM, in a signer of the project, or in a PKCS#11 token."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings
from django.test import override_settings

from django_phi_oidc.audit.log.signing_keys import find_signing_key, get_signing_key
from django_phi_oidc.audit.merkle.checkpoint import verify_checkpoint
from django_phi_oidc.audit.models import AuditCheckpoint
from django_phi_oidc.audit.tasks import seal as seal_task
from django_phi_oidc.errors import KeyMissing
from tests.support.audit_log import KEY, OTHER_KEY, PEM, events
from tests.support.phi_oidc_settings import override_phi_oidc


class Signer:
    """A signer of a project."""

    def public_key(self) -> Ed25519PublicKey:
        return KEY.public_key()

    def sign(self, data: bytes) -> bytes:
        return KEY.sign(data)


class OtherKeySigner(Signer):
    def sign(self, data: bytes) -> bytes:
        return OTHER_KEY.sign(data)


class AwaySigner(Signer):
    def sign(self, data: bytes) -> bytes:
        raise OSError("a secret of the key service")


class AwayPublicKeySigner(Signer):
    def public_key(self) -> Ed25519PublicKey:
        raise OSError("a secret of the key service")


class ECSigner(Signer):
    def public_key(self) -> Any:
        return generate_private_key(SECP256R1()).public_key()


def declared(source: Any) -> override_settings:
    return override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": source}))


def create_signer() -> Signer:
    return Signer()


SOURCES: dict[str, Any] = {
    "PEM": PEM,
    "callable that returns PEM": lambda: PEM,
    "signer": Signer(),
    "class": Signer,
    "callable that returns a signer": create_signer,
    "dotted path": f"{__name__}.Signer",
    "private key": KEY,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_each_source_signs(source: Any) -> None:
    with declared(source):
        key = get_signing_key()
    KEY.public_key().verify(key.sign(b"data"), b"data")
    assert key.public_key() == KEY.public_key()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OtherKeySigner, "a signature is not valid under the signer's public key"),
        (AwaySigner, "the signer failed"),
    ],
)
def test_signer_that_fails_is_a_missing_key(source: Any, message: str) -> None:
    with declared(source):
        key = get_signing_key()
        with pytest.raises(KeyMissing, match=message) as refused:
            key.sign(b"data")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (AwayPublicKeySigner, "the signer has no public key"),
        (ECSigner, "is not an Ed25519 key"),
        ("tests.nowhere.Signer", "can't be imported"),
        ("pkcs11:token=portal", "is no usable PKCS#11 URI"),
        ("not a key", "can't be read"),
    ],
)
def test_source_without_a_key_is_refused(source: Any, message: str) -> None:
    with declared(source), pytest.raises(KeyMissing, match=message):
        find_signing_key()


def test_web_process_has_no_signing_key() -> None:
    with declared(None):
        assert find_signing_key() is None
        with pytest.raises(KeyMissing):
            get_signing_key()


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_nothing_is_sealed_while_the_signer_fails() -> None:
    events(2)
    with declared(OtherKeySigner), pytest.raises(KeyMissing):
        seal_task()
    assert AuditCheckpoint.objects.count() == 0
    with declared(Signer):
        seal_task()
    assert AuditCheckpoint.objects.get().tree_size >= 2


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of a key in a new SoftHSM token."""
    from tests.support.softhsm import create_token  # noqa: PLC0415 -- needs the marker

    monkeypatch.setenv("SOFTHSM2_CONF", os.environ.get("SOFTHSM2_CONF", ""))
    return create_token(tmp_path / "hsm")


@pytest.mark.softhsm
@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_log_is_sealed_by_a_key_in_a_token(token: str) -> None:
    events(3)
    with declared(token):
        seal_task()
        public_key = get_signing_key().public_key()
    note = AuditCheckpoint.objects.get().note
    assert verify_checkpoint(note, [public_key]).tree_size == 3


WRONG_URIS: dict[str, Callable[[str], str]] = {
    "another token": lambda uri: uri.replace("token=portal", "token=other"),
    "another key": lambda uri: uri.replace("object=audit-log", "object=other"),
    "another id": lambda uri: uri.replace("object=audit-log", "object=audit-log;id=%02"),
    "another module": lambda uri: uri.replace("libsofthsm2.so", "none.so"),
    "another PIN": lambda uri: f"{uri.partition('&')[0]}&pin-value=4321",
}


@pytest.mark.softhsm
@pytest.mark.parametrize("change", WRONG_URIS.values(), ids=WRONG_URIS)
def test_token_that_cannot_be_used_is_a_missing_key(token: str, change: Callable[[str], str]) -> None:
    with declared(token):
        assert len(get_signing_key().sign(b"data")) == 64
    with declared(token.replace("object=audit-log", "id=%01")):
        assert len(get_signing_key().sign(b"data")) == 64
    with declared(change(token)), pytest.raises(KeyMissing, match=r"^The PKCS#11 token can't be used: \w+\.$"):
        get_signing_key().sign(b"data")


@pytest.mark.softhsm
def test_key_in_a_token_is_used_in_a_forked_process(token: str) -> None:
    with declared(token):
        assert len(get_signing_key().sign(b"data")) == 64
        child = os.fork()
        if not child:
            os._exit(0 if len(get_signing_key().sign(b"data")) == 64 else 1)
        assert os.waitpid(child, 0)[1] == 0
