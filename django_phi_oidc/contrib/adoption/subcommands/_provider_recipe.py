"""The recipe of a provider as lines of the settings and of the environment, with a comment for each
option.
"""

import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ....project_settings import PROVIDER_VARIABLES
from ...doctor.known_providers.definitions import ClientKeyType, Recipe, RecipeOption
from ..python_source import LINE_LENGTH, UNPACKED, Call, EnvironmentVariable, format_python

CLIENT_KEY_FILE = "client-key.pem"
DECRYPTION_KEY_FILE = "decryption-key.pem"
FEDERATION_KEY_FILE = "federation-key.pem"
KEY_VARIABLES = {
    CLIENT_KEY_FILE: "OIDC_CLIENT_KEY_FILE",
    DECRYPTION_KEY_FILE: "OIDC_DECRYPTION_KEY_FILE",
    FEDERATION_KEY_FILE: "OIDC_FEDERATION_KEY_FILE",
}
CERTIFICATE_VARIABLE = "OIDC_CLIENT_CERTIFICATE_FILE"
TRUST_ANCHOR_VARIABLE = "OIDC_TRUST_ANCHOR_KEYS_FILE"
RSA_KEY_BITS = 3072
_INDENT = 4


def format_provider(recipe: Recipe, *, indent: int) -> str:
    """Return the declaration of the provider `default` as Python, indented except for its first
    line.
    """
    lines = []
    for option in _list_options(recipe):
        for line in _format_option(option, indent=indent + 2 * _INDENT):
            lines.append(line)
    outer = " " * indent
    inner = " " * (indent + _INDENT)
    return "\n".join(["{", f'{inner}"default": {{', *lines, f"{inner}}},", f"{outer}}}"])


def list_recipe_functions(recipe: Recipe) -> list[str]:
    """Return the names of the functions of `project_settings` that the lines call."""
    if recipe.client_key_type:
        return ["read_variable"]
    return ["read_provider"]


def format_imports(recipe: Recipe, *, functions: list[str]) -> str:
    """Return the import lines. functions: of `project_settings`."""
    if recipe.client_key_type:
        path = "from pathlib import Path\n\n"
    else:
        path = ""
    return f"{path}from django_phi_oidc.project_settings import {', '.join(functions)}\n"


def format_settings(recipe: Recipe) -> str:
    """Return the lines that replace PROVIDERS in existing settings."""
    provider = format_provider(recipe, indent=0)
    return (
        f'{format_imports(recipe, functions=list_recipe_functions(recipe))}\nPHI_OIDC["PROVIDERS"] '
        f"= {provider}\n"
    )


def list_variable_lines(recipe: Recipe, *, folder: Path) -> list[str]:
    """Return the lines of the environment. A variable without a value is a comment, so that an
    existing one is kept.

    folder: of the key files.
    """
    if recipe.issuer_note:
        note = [f"# {recipe.issuer_note}"]
    else:
        note = []

    mark = "#" if recipe.issuer_note else ""
    lines = [
        *note,
        f"{mark}{PROVIDER_VARIABLES['issuer']}={recipe.issuer}",
        f"#{PROVIDER_VARIABLES['client_id']}=",
    ]
    if not recipe.client_key_type:
        lines.append(f"#{PROVIDER_VARIABLES['client_secret']}=")
    for name in list_key_types(recipe):
        lines.append(f"{KEY_VARIABLES[name]}={shlex.quote(str(folder / name))}")
    if recipe.needs_certificate:
        lines.append(f"#{CERTIFICATE_VARIABLE}=")
    if recipe.trust_anchor:
        lines.append(f"#{TRUST_ANCHOR_VARIABLE}=")
    return lines


def list_key_types(recipe: Recipe) -> dict[str, ClientKeyType]:
    """Return the type of each key file."""
    types: dict[str, ClientKeyType] = {
        CLIENT_KEY_FILE: recipe.client_key_type,
        DECRYPTION_KEY_FILE: recipe.decryption_key_type,
        FEDERATION_KEY_FILE: "P-256" if recipe.trust_anchor else "",
    }
    key_types: dict[str, ClientKeyType] = {}
    for name, key_type in types.items():
        if key_type:
            key_types[name] = key_type
    return key_types


def generate_client_key(key_type: ClientKeyType) -> str:
    """Return a new private key as PEM."""
    curves = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if key_type in curves:
        key = ec.generate_private_key(curves[key_type]())
    else:
        key = rsa.generate_private_key(65537, RSA_KEY_BITS)

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _list_options(recipe: Recipe) -> Iterator[RecipeOption]:
    """Yield all options, those of every provider first."""
    for name, value, reason in _list_client_options(recipe):
        yield RecipeOption(name=name, value=value, reason=reason)
    yield from recipe.options


def _list_client_options(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and reason of the options that are read from the environment."""
    if not recipe.client_key_type:
        reason = "Issuer, client id and client secret, from the environment."
        yield UNPACKED, Call("read_provider()"), reason
        return
    yield (
        "issuer",
        EnvironmentVariable(PROVIDER_VARIABLES["issuer"]),
        "As in its ID Tokens, byte for byte.",
    )
    reason = "From the registration."
    if recipe.trust_anchor:
        reason = "The entity identifier of the portal, such as https://your.host/oidc."
    yield "client_id", EnvironmentVariable(PROVIDER_VARIABLES["client_id"]), reason
    key = _read_path(KEY_VARIABLES[CLIENT_KEY_FILE])
    certificate = _read_path(CERTIFICATE_VARIABLE)
    decryption_key = {"key": _read_path(KEY_VARIABLES[DECRYPTION_KEY_FILE]), "use": "enc"}
    if recipe.key_auth_method == "self_signed_tls_client_auth":
        yield (
            "token_endpoint_auth_method",
            recipe.key_auth_method,
            "Mutual TLS in place of a client secret.",
        )
        yield "client_certificate", certificate, "A self-signed certificate of the key below."
        yield "client_certificate_key", key, "Its private key."
        yield "client_keys", [decryption_key], "For encrypted tokens."
    else:
        yield (
            "token_endpoint_auth_method",
            recipe.key_auth_method,
            "A key in place of a client secret.",
        )
        reason = "The private key. https://your.host/oidc/jwks.json has the public one."
        keys: list[Any] = [key]
        if recipe.decryption_key_type:
            reason = (
                "To sign, and for encrypted tokens. "
                "https://your.host/oidc/jwks.json has the public keys."
            )
            keys = [key, decryption_key]
        elif recipe.needs_certificate:
            reason = "The private key, and its certificate with those above it."
            keys = [{"key": key, "certificate": certificate}]
        yield "client_keys", keys, reason
    if recipe.trust_anchor:
        members = tuple(_list_federation_options(recipe.trust_anchor))
        yield (
            "federation",
            members,
            "Metadata and keys of the provider come from its trust chain.",
        )


def _list_federation_options(trust_anchor: str) -> Iterator[RecipeOption]:
    for name, value, reason in (
        ("trust_anchor", trust_anchor, "Each trust chain must end there."),
        (
            "trust_anchor_keys",
            _read_path(TRUST_ANCHOR_VARIABLE),
            "Its public keys, from its operator: a JWKS.",
        ),
        ("authority_hints", [trust_anchor], "The superiors that have registered the portal."),
        (
            "keys",
            _read_path(KEY_VARIABLES[FEDERATION_KEY_FILE]),
            "Signs the portal's entity configuration only.",
        ),
        ("organization_name", "Example Clinic", "Published: your organization."),
        ("contacts", ["it@clinic.example"], "Published: your addresses."),
    ):
        yield RecipeOption(name=name, value=value, reason=reason)


def _read_path(variable: str) -> Call:
    return Call(f'Path(read_variable("{variable}"))')


def _format_option(option: RecipeOption, *, indent: int) -> Iterator[str]:
    margin = " " * indent
    yield from textwrap.wrap(
        option.reason,
        LINE_LENGTH,
        initial_indent=f"{margin}# ",
        subsequent_indent=f"{margin}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if option.name == UNPACKED:
        yield f"{margin}**{option.value},"
        return
    start = f'{margin}"{option.name}": '
    if isinstance(option.value, tuple):
        yield f"{start}{{"
        for member in option.value:
            yield from _format_option(member, indent=indent + _INDENT)
        yield f"{margin}}},"
    elif isinstance(option.value, list):
        yield from _format_list(start, option.value, indent=indent)
    else:
        yield f"{start}{format_python(option.value, indent=indent, prefix=start.lstrip())},"


def _format_list(start: str, items: list[Any], *, indent: int) -> Iterator[str]:
    """Yield the list on one line if it fits, otherwise each item on its own."""
    line = f"{start}[{', '.join(map(format_python, items))}],"
    if "\n" not in line and len(line) <= LINE_LENGTH:
        yield line
        return
    inner = indent + _INDENT
    yield f"{start}["
    yield from (f"{' ' * inner}{format_python(item, indent=inner)}," for item in items)
    yield f"{' ' * indent}],"
