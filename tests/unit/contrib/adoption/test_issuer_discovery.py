"""The issuer of a provider is found from its endpoints."""

from collections.abc import Iterator

import pytest

from django_phi_oidc.contrib.adoption.issuer_discovery import (
    MAX_CANDIDATES,
    ConnectionOptions,
    _list_candidates,
    fetch_provider,
    find_provider_of_endpoints,
)
from django_phi_oidc.errors import TransportError
from tests.docs.test_docs import free_port
from tests.unit.contrib.adoption.metadata_server import (
    WELL_KNOWN,
    MetadataServer,
    run_metadata_server,
)

CONNECTION = ConnectionOptions()


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with run_metadata_server() as server:
        yield server


def find(server: MetadataServer, path: str, name: str = "authorization_endpoint") -> str:
    found = find_provider_of_endpoints({name: f"{server.base}{path}"}, connection=CONNECTION)
    return found.issuer if found else ""


@pytest.mark.parametrize("path", ["", "/", "/realms/hospital", "/oauth2/default/"])
def test_issuer_is_found_above_its_endpoint_byte_for_byte(server: MetadataServer, path: str) -> None:
    endpoint = f"{server.base}{path.rstrip('/')}/protocol/openid-connect/auth"
    issuer = server.publish(path, authorization_endpoint=endpoint)
    assert find(server, f"{path.rstrip('/')}/protocol/openid-connect/auth") == issuer


def test_issuer_is_found_from_the_keys_alone(server: MetadataServer) -> None:
    """As at Amazon Cognito, whose other endpoints are at another host."""
    issuer = server.publish("/pool", jwks_uri=f"{server.base}/pool/.well-known/jwks.json")
    assert find(server, "/pool/.well-known/jwks.json", "jwks_uri") == issuer
    assert server.requested_paths == [f"/pool{WELL_KNOWN}"]


def test_metadata_with_other_endpoints_are_not_those_of_the_provider(server: MetadataServer) -> None:
    server.publish("/realms/other")
    assert find(server, "/realms/other/protocol/openid-connect/another") == ""
    assert find(server, "/realms/other/protocol/openid-connect/auth") != ""


def test_metadata_must_be_those_of_the_issuer_that_they_name(server: MetadataServer) -> None:
    issuer = server.publish("/named")
    alias = {**server.documents["/named"], "authorization_endpoint": f"{server.base}/alias/auth"}
    server.documents["/alias"] = alias
    server.documents["/named"] = alias
    assert find(server, "/alias/auth") == issuer
    server.documents["/alias"] = {**alias, "issuer": f"{server.base}/nowhere"}
    assert find(server, "/alias/auth") == ""
    server.documents["/alias"] = {**alias, "issuer": "https://login.example/{tenantid}/v2.0" * 20}
    assert find(server, "/alias/auth") == ""


def test_unreachable_host_is_tried_once_and_the_next_endpoint_decides(server: MetadataServer) -> None:
    issuer = server.publish("/realms/hospital")
    endpoints = {
        "authorization_endpoint": f"http://127.0.0.1:{free_port()}/a/b/c/d",
        "token_endpoint": f"{issuer}/protocol/openid-connect/token",
    }
    found = find_provider_of_endpoints(endpoints, connection=CONNECTION)
    assert found is not None
    assert found.issuer == issuer


def test_no_request_is_sent_in_clear_to_another_machine() -> None:
    assert fetch_provider("http://192.0.2.1/realms/x", connection=CONNECTION) is None
    with pytest.raises(TransportError):
        fetch_provider(f"http://127.0.0.1:{free_port()}/realms/x", connection=CONNECTION)


@pytest.mark.parametrize(
    "url",
    ["", "no URL", "https://[bad/x", "https:///x", "https://127.0.0.1:99999/x", "ftp://op.example/x", "https://ü/ü"],
)
def test_invalid_endpoint_is_of_no_provider(url: str) -> None:
    assert find_provider_of_endpoints({"token_endpoint": url}, connection=CONNECTION) is None


def test_ca_file_that_does_not_exist_makes_the_provider_unreachable() -> None:
    connection = ConnectionOptions(ca_bundle="/no/such/file")
    endpoints = {"token_endpoint": f"https://127.0.0.1:{free_port()}/token"}
    assert find_provider_of_endpoints(endpoints, connection=connection) is None


def test_number_of_candidates_is_limited() -> None:
    url = "https://op.example/" + "/".join("abcdefghijklmnop")
    assert len(list(_list_candidates([url, url]))) == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("endpoint", "issuer"),
    [
        (
            "https://login.microsoftonline.com/1b2c/oauth2/v2.0/authorize",
            "https://login.microsoftonline.com/1b2c/v2.0",
        ),
        ("https://example.okta.com/oauth2/default/v1/authorize", "https://example.okta.com/oauth2/default"),
        ("https://example.eu.auth0.com/authorize", "https://example.eu.auth0.com"),
        ("https://accounts.google.com/o/oauth2/v2/auth", "https://accounts.google.com"),
        (
            "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE/.well-known/jwks.json",
            "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE",
        ),
        ("https://id.example.org/o/authorize/?a=/b/", "https://id.example.org/o"),
    ],
)
def test_candidates_contain_the_issuer_of_known_services(endpoint: str, issuer: str) -> None:
    assert issuer in _list_candidates([endpoint])
