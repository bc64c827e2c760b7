"""A declaration by the recipe of a known provider, with keys of this process."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from django_phi_oidc.contrib.adoption.subcommands._provider_recipe import (
    CERTIFICATE_VARIABLE,
    CLIENT_KEY_FILE,
    DECRYPTION_KEY_FILE,
    FEDERATION_KEY_FILE,
    KEY_VARIABLES,
    TRUST_ANCHOR_VARIABLE,
    generate_client_key,
    list_key_types,
)
from django_phi_oidc.contrib.doctor.known_providers.definitions import ClientKeyType, Recipe
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.support.tls import create_certificate_pem

ENTITY_IDENTIFIER = "https://portal.example/oidc"


@cache
def create_key_pem(key_type: ClientKeyType, file: str = CLIENT_KEY_FILE) -> str:
    """Return the key of a file, the same for the whole run, because new RSA keys take long."""
    return generate_client_key(key_type)


def build_declaration(recipe: Recipe, **options: Any) -> dict[str, Any]:
    """Return the options of the recipe and these, with a client id and a secret or keys."""
    client: dict[str, Any] = {"client_secret": "not-for-production"}
    if recipe.client_key_type:
        pem = create_key_pem(recipe.client_key_type)
        entries: list[Any] = [pem]
        if recipe.needs_certificate:
            entries = [{"key": pem, "certificate": create_certificate_pem(pem)}]
        client = {"token_endpoint_auth_method": recipe.key_auth_method}
        if recipe.key_auth_method == "self_signed_tls_client_auth":
            client["client_certificate"], entries = "/etc/portal/client.pem", []
        if recipe.decryption_key_type:
            entries.append({"key": create_key_pem(recipe.decryption_key_type, DECRYPTION_KEY_FILE), "use": "enc"})
        client["client_keys"] = entries
    if recipe.trust_anchor:
        client["federation"] = {
            "trust_anchor": recipe.trust_anchor,
            "trust_anchor_keys": create_trust_anchor_keys(),
            "authority_hints": [recipe.trust_anchor],
            "keys": create_key_pem("P-256", FEDERATION_KEY_FILE),
        }
    declared = {option.name: option.value for option in recipe.options}
    return {"issuer": recipe.issuer, "client_id": get_client_id(recipe), **client, **declared, **options}


def create_trust_anchor_keys() -> dict[str, Any]:
    return {"keys": [create_signing_key("ES256").public_jwk()]}


def get_client_id(recipe: Recipe) -> str:
    return ENTITY_IDENTIFIER if recipe.trust_anchor else "portal"


def write_client_files(recipe: Recipe, folder: Path) -> dict[str, str]:
    """Write the key files of the recipe, and return the environment of the settings."""
    variables = {
        "OIDC_ISSUER": recipe.issuer,
        "OIDC_CLIENT_ID": get_client_id(recipe),
        "OIDC_CLIENT_SECRET": "not-for-production",
    }
    for name, key_type in list_key_types(recipe).items():
        file = folder / name
        file.write_text(create_key_pem(key_type, name))
        file.chmod(0o600)
        variables[KEY_VARIABLES[name]] = str(file)
    if recipe.needs_certificate:
        certificate = folder / "certificate.pem"
        certificate.write_text(create_certificate_pem(create_key_pem(recipe.client_key_type)))
        variables[CERTIFICATE_VARIABLE] = str(certificate)
    if recipe.trust_anchor:
        keys = folder / "trust-anchor.json"
        keys.write_text(json.dumps(create_trust_anchor_keys()))
        variables[TRUST_ANCHOR_VARIABLE] = str(keys)
    return variables
