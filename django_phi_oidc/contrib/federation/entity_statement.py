"""Entity statements: signed by an entity about itself, the entity configuration, or about a
subordinate.

Spec: OpenID Federation 1.0 3, 8.1, 9.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn

from ...errors import IDTokenError, KeyNotFound, MetadataError
from ...http.transport import TransportRequest, TransportResponse, add_query
from ...oidc.id_token import parse_numeric_date
from ...oidc.jose import JWS, parse_compact_jws
from ...oidc.jwks import JSONWebKeySet, parse_jwks
from .declaration import is_entity_identifier
from .errors import FederationCode

WELL_KNOWN_PATH = "/.well-known/openid-federation"
ENTITY_STATEMENT_TYP = "entity-statement+jwt"
FEDERATION_ENTITY = "federation_entity"
OPENID_PROVIDER = "openid_provider"
OPENID_RELYING_PARTY = "openid_relying_party"
"""Entity types. Spec: OpenID Federation 1.0 5.1."""
_ONLY_IN_CONFIGURATIONS = frozenset(
    {"authority_hints", "trust_anchor_hints", "trust_mark_issuers", "trust_mark_owners"}
)
"""And `trust_marks`, which Italy's federation has in subordinate statements, too, so it is ignored
there.
"""
_ONLY_IN_SUBORDINATE_STATEMENTS = frozenset(
    {"constraints", "metadata_policy", "metadata_policy_crit", "source_endpoint"}
)
_OF_OTHER_JWTS = frozenset({"aud", "trust_anchor"})
"""Claims of explicit registration only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityStatement:
    """A statement with a valid structure. Its content is not authentic until
    `verify_entity_statement` returns.

    The statements of a trust chain are verified with keys of each other, so each is parsed first.
    """

    jws: JWS = field(repr=False)
    iss: str
    sub: str
    issued_at: datetime
    expires_at: datetime
    keys: JSONWebKeySet = field(repr=False)
    """The federation keys of the subject."""
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def is_configuration(self) -> bool:
        """Whether the entity states this about itself."""
        return self.iss == self.sub

    def find_metadata(self, entity_type: str) -> Mapping[str, Any] | None:
        """Return the metadata of the subject as an entity of that type; None if it is none, as far
        as stated here.
        """
        metadata: Mapping[str, Any] | None = self.claims.get("metadata", {}).get(entity_type)
        return metadata


def build_entity_configuration_url(entity_identifier: str) -> str:
    """Return the URL of an entity configuration. Spec: OpenID Federation 1.0 9 (a terminating / is
    removed).
    """
    return f"{entity_identifier.removesuffix('/')}{WELL_KNOWN_PATH}"


def build_entity_configuration_request(entity_identifier: str) -> TransportRequest:
    """Return the request for the statement of an entity about itself. Spec: OpenID Federation 1.0
    9.1.
    """
    return _build_statement_request(build_entity_configuration_url(entity_identifier))


def build_subordinate_statement_request(endpoint: str, *, iss: str, sub: str) -> TransportRequest:
    """Return the request for the statement of a superior about a subordinate.

    `iss` is sent for Germany's federation, which follows a draft that required it. Spec: OpenID
    Federation 1.0 8.1.1.
    """
    return _build_statement_request(add_query(endpoint, {"iss": iss, "sub": sub}))


def process_statement_response(
    response: TransportResponse, *, iss: str, sub: str
) -> EntityStatement:
    """Return the statement that was requested. Its signature and times are NOT verified.

    The media type, which static hosts set as they like, is ignored: `typ` is signed.
    Raises: MetadataError. Spec: OpenID Federation 1.0 8.1.2, 9.2.
    """
    if response.status != 200:
        raise MetadataError(
            FederationCode.TRUST_CHAIN_INVALID, "An entity of the federation has no such statement."
        )
    # Each byte is a character in latin-1, and the parser refuses those that are not ASCII.
    statement = parse_entity_statement(response.body.decode("latin-1").strip())
    if (statement.iss, statement.sub) != (iss, sub):
        raise MetadataError(
            FederationCode.ENTITY_STATEMENT_INVALID, "An entity statement is not the requested one."
        )
    return statement


def parse_entity_statement(token: str) -> EntityStatement:
    """Return the parts of a statement. NOT checked: signature and times.

    Claims that only the other kind of statement may have are refused, and `crit`: no extension is
    supported.
    Raises: MetadataError. Spec: OpenID Federation 1.0 3.1, 3.2, 13.4.
    """
    jws = _parse_jws(token, typ=ENTITY_STATEMENT_TYP)
    claims = jws.payload
    iss = claims.get("iss")
    sub = claims.get("sub")
    issued_at, expires_at = (parse_numeric_date(claims.get(name)) for name in ("iat", "exp"))
    if (
        not isinstance(iss, str)
        or not isinstance(sub, str)
        or not all(map(is_entity_identifier, (iss, sub)))
    ):
        _fail("iss or sub is no entity identifier")
    if issued_at is None or expires_at is None:
        _fail("iat or exp is missing")

    if iss == sub:
        foreign = _ONLY_IN_SUBORDINATE_STATEMENTS
    else:
        foreign = _ONLY_IN_CONFIGURATIONS

    if claims.keys() & (foreign | _OF_OTHER_JWTS):
        _fail("it has a claim of another kind of statement")
    if "crit" in claims:
        _fail("it has a critical claim, and none is supported")
    if "metadata_policy_crit" in claims:
        raise MetadataError(
            FederationCode.METADATA_POLICY_ERROR,
            "A policy operator is critical, and not supported.",
        )
    _validate_metadata_claim(claims)
    if "authority_hints" in claims and not _is_identifier_list(claims["authority_hints"]):
        _fail("authority_hints is no list of entity identifiers")
    return EntityStatement(
        jws=jws,
        iss=iss,
        sub=sub,
        issued_at=issued_at,
        expires_at=expires_at,
        keys=_read_federation_keys(claims.get("jwks")),
        claims=claims,
    )


def verify_entity_statement(
    statement: EntityStatement, *, keys: JSONWebKeySet, now: datetime, leeway: timedelta
) -> None:
    """`entity_statement_invalid`: one of the issuer's keys has signed the statement, and it is
    valid now.

    keys: of the issuer, as its superior states them. Raises: MetadataError. Spec: OpenID Federation
    1.0 3.2, 10.2.
    """
    if statement.issued_at > now + leeway or statement.expires_at <= now - leeway:
        _fail("it has expired, or is issued in the future")
    _verify_signature(statement.jws, keys=keys)


def parse_signed_jwks(
    body: bytes, *, entity_identifier: str, keys: JSONWebKeySet, now: datetime, leeway: timedelta
) -> JSONWebKeySet:
    """Return the keys of a signed JWKS, whose signature is verified with the federation keys of the
    entity.

    The typ `jwk-set+json` is that of Germany's federation; neither is that of another JWT of an
    entity.
    Raises: MetadataError. Spec: OpenID Federation 1.0 5.2.1.1 (signed_jwks_uri).
    """
    jws = _parse_jws(body.decode("latin-1").strip(), typ="jwk-set+jwt", former_typ="jwk-set+json")
    claims = jws.payload
    if (claims.get("iss"), claims.get("sub", claims.get("iss"))) != (
        entity_identifier,
        entity_identifier,
    ):
        _fail("a signed JWKS is that of another entity")
    issued_at: datetime | None = now
    if "iat" in claims:
        issued_at = parse_numeric_date(claims["iat"])
    expires_at: datetime | None = now
    if "exp" in claims:
        expires_at = parse_numeric_date(claims["exp"])
    if (
        issued_at is None
        or expires_at is None
        or issued_at > now + leeway
        or expires_at < now - leeway
    ):
        _fail("a signed JWKS has expired, or is issued in the future")
    _verify_signature(jws, keys=keys)
    return parse_jwks(json.dumps({"keys": claims.get("keys")}).encode())


def _build_statement_request(url: str) -> TransportRequest:
    headers = {"Accept": "application/entity-statement+jwt"}
    return TransportRequest(method="GET", url=url, headers=headers, operation="federation")


def _parse_jws(token: str, *, typ: str, former_typ: str = "") -> JWS:
    jws = None
    with suppress(IDTokenError):
        jws = parse_compact_jws(token)
    if jws is None or jws.media_type not in (typ, former_typ or typ) or not jws.kid:
        _fail("it is no JWS with kid and the typ of its kind")
    if jws.header.keys() & {"trust_chain", "peer_trust_chain"}:
        _fail("its header contains a trust chain")
    return jws


def _verify_signature(jws: JWS, *, keys: JSONWebKeySet) -> None:
    key = None
    with suppress(KeyNotFound):
        key = keys.get_key(kid=jws.kid, alg=jws.alg)
    if key is None or not key.verify(jws.alg, jws.signing_input, jws.signature):
        _fail("no key of its issuer has signed it")


def _read_federation_keys(jwks: Any) -> JSONWebKeySet:
    """Spec: OpenID Federation 1.0 3.1.1 (jwks)."""
    members = None
    if isinstance(jwks, dict):
        members = jwks.get("keys")

    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        _fail("jwks is missing")
    kids = [member.get("kid") for member in members]
    if (
        not kids
        or not all(isinstance(kid, str) and kid for kid in kids)
        or len(set(kids)) < len(kids)
    ):
        _fail("jwks is empty, or has a key without a kid of its own")
    return parse_jwks(json.dumps({"keys": members}).encode())


def _validate_metadata_claim(claims: Mapping[str, Any]) -> None:
    """Spec: OpenID Federation 1.0 3.1.1 (metadata), 3.2 (no null)."""
    metadata = claims.get("metadata", {})
    if not _is_object_of_objects(metadata):
        _fail("metadata is no object of objects")
    for members in metadata.values():
        if None in members.values():
            _fail("metadata contains null")


def _is_object_of_objects(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _is_identifier_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, str) and is_entity_identifier(item) for item in value)
    )


def _fail(reason: str) -> NoReturn:
    raise MetadataError(FederationCode.ENTITY_STATEMENT_INVALID, f"Entity statement: {reason}.")
