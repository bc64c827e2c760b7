"""The registry: one provider per declaration and process, cleared when the setting changes."""

import gc
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.test import override_settings
from django.utils import translation
from django.utils.translation import gettext_lazy

from django_phi_oidc.errors import Code, KeyNotFound
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest
from django_phi_oidc.provider.registry import get_provider
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, answering, reply, serving
from tests.support.tls import CertificateAuthority

MINIMAL = {"issuer": "https://127.0.0.1", "client_id": "portal", "client_secret": "s"}


@contextmanager
def declaring(**providers: dict[str, object]) -> Iterator[None]:
    with override_settings(PHI_OIDC={"PROVIDERS": {name: {**MINIMAL, **more} for name, more in providers.items()}}):
        yield


def test_translated_label_gives_one_provider() -> None:
    with declaring(clinic={"label": gettext_lazy("January")}):
        labels = []
        for language in ("en", "de", "fr"):
            with translation.override(language):
                labels.append((str(get_provider().declaration.label), id(get_provider())))
    assert len({label for label, _ in labels}) > 1, "the text differs between languages"
    assert len({provider for _, provider in labels}) == 1


def test_provider_is_found_by_name_or_the_first_is_returned() -> None:
    with declaring(clinic={"client_id": "one"}, lab={"client_id": "two"}):
        assert get_provider().declaration.name == get_provider("clinic").declaration.name == "clinic"
        assert get_provider("lab").declaration.client_id == "two"
        assert get_provider() is get_provider("clinic")
        assert get_provider("lab") is get_provider("lab")
        assert get_provider("lab") is not get_provider("clinic")
        assert isinstance(get_provider("lab").transport, HTTPTransport)


@pytest.mark.parametrize("name", ["other", "", "CLINIC"])
def test_unknown_provider_name_is_refused(name: str) -> None:
    with declaring(clinic={}):
        with raises(Code.PROVIDER_UNKNOWN):
            get_provider(name)
        assert get_provider("clinic").declaration.name == "clinic"


def test_get_provider_without_providers_is_refused() -> None:
    with declaring(), raises(Code.PROVIDER_UNKNOWN):
        get_provider()
    with declaring(clinic={}):
        assert get_provider().declaration.name == "clinic"


def test_equal_declarations_of_two_names_give_two_providers() -> None:
    with declaring(clinic={}, lab={}):
        assert get_provider("clinic") is not get_provider("lab")


def test_changed_setting_clears_the_providers() -> None:
    with declaring(clinic={}):
        before = get_provider()
        with declaring(clinic={"client_id": "other"}):
            assert get_provider().declaration.client_id == "other"
        assert get_provider().declaration.client_id == "portal"
        assert get_provider() is not before


def test_cleared_provider_leaves_no_open_socket(tls: ssl.SSLContext, authority: CertificateAuthority) -> None:
    with serving(answering(reply()), tls=tls) as server:
        with declaring(clinic={"ca_bundle": authority.certificate_path}):
            request = TransportRequest(method="GET", url=server.url, headers={})
            assert get_provider().transport.send(request, timeout_seconds=5).status == 200
        gc.collect()
        assert server.closed.acquire(timeout=5)


def test_metadata_and_keys_are_validated_over_a_socket(tls: ssl.SSLContext, authority: CertificateAuthority) -> None:
    def op(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            peer.send(reply(json.dumps(document if b"/.well-known/" in request else {"keys": []}).encode()))

    with serving(op, tls=tls) as server:
        issuer = server.url.removesuffix("/")
        names = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri")
        document = {
            "issuer": issuer,
            **{name: server.url + name for name in names},
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        with declaring(clinic={"issuer": issuer, "ca_bundle": authority.certificate_path}):
            document["issuer"] = f"{issuer}/"
            with raises(Code.ISSUER_MISMATCH):
                get_provider().get_metadata(timeout_seconds=5)
            document["issuer"] = issuer
            assert get_provider().get_metadata(timeout_seconds=5).jwks_uri == f"{server.url}jwks_uri"
            with raises(KeyNotFound):
                get_provider().get_key_set(timeout_seconds=5).get_key(kid="a", alg="ES256")
        assert server.accepted == 1
    paths = [request.split(b" ")[1].decode() for request in server.requests]
    assert paths == ["/.well-known/openid-configuration"] * 2 + ["/jwks_uri"]


FORKING_PROGRAM = """
import os
import django
from django.conf import settings
apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
settings.configure(INSTALLED_APPS=[*apps, "django_phi_oidc", "django_phi_oidc.audit"], PHI_OIDC={"PROVIDERS": {"a": {
    "issuer": "https://127.0.0.1", "client_id": "portal", "client_secret": "s"}}})
django.setup()
from django_phi_oidc.provider.registry import get_provider
before = get_provider()
assert get_provider() is before
child = os.fork()
if child == 0:
    os._exit(int(get_provider() is before))
assert os.waitpid(child, 0)[1] == 0
assert get_provider() is before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_has_its_own_provider() -> None:
    process = subprocess.run([sys.executable, "-c", FORKING_PROGRAM], check=False, timeout=30)
    assert process.returncode == 0
