"""The resources of this service provider, reduced to what it stores, and the discovery documents.

An attribute that is not declared here is accepted, and not stored. Spec: RFC 7643 4.1, 4.2, 5, 6,
7; RFC 7644 4.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field
from scim2_models import (
    URN,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    ETag,
    Extension,
    External,
    Filter,
    Meta,
    Mutability,
    Patch,
    Reference,
    Required,
    Resource,
    ResourceType,
    Returned,
    Schema,
    ScimPolicy,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)

from .declaration import SUBJECT_SCHEMA

MAX_BODY_BYTES = 1024 * 1024
MAX_BULK_OPERATIONS = 100
MAX_PATH_CHARACTERS = 64 * 1024
"""Of all paths in one PATCH request: filters in paths of 300 kB took nine seconds."""
MAX_RESULTS = 200
"""Resources in one response."""
POLICY = ScimPolicy(
    # Clients send whole profiles; what is not needed is not stored.
    unknown=ScimPolicy.Unknown.ignore,
    # Entra ID removes members by a value, and adds the value that a filter describes.
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)


class Subject(Extension):
    """The person's identity at the provider."""

    __schema__ = URN(SUBJECT_SCHEMA)

    sub: Annotated[str | None, Mutability.write_only, Returned.never, CaseExact.true] = None
    """The pairwise `sub` of the person's ID Tokens for this portal. Once set, it does not
    change.
    """


class GroupOfUser(ComplexAttribute):
    """A group that the user is a member of."""

    value: Annotated[str | None, Mutability.read_only, CaseExact.true] = None
    """The id of the group."""
    ref: Annotated[Reference["Group"] | None, Mutability.read_only] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    """The URL of the group."""
    display: Annotated[str | None, Mutability.read_only] = None
    """The displayName of the group."""


class User(Resource[Any]):
    """An account of the portal."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    """The name of the user for the client. The portal does not sign anyone in by it."""
    active: bool | None = None
    """False: the account is disabled, its sessions are ended and its tokens revoked."""
    groups: Annotated[list[GroupOfUser] | None, Mutability.read_only] = None
    """The groups that the user is a member of."""


class Member(ComplexAttribute):
    """A user in a group."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    """The id of the user."""
    ref: Annotated[Reference["User"] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    """The URL of the user."""
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User"])
    """Always User."""


class Group(Resource[Any]):
    """A group of users, which the portal may map to roles."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    """The name of the group, by which rules of the portal find it."""
    members: list[Member] | None = None
    """The users in the group."""


def build_service_provider_config(base_url: str) -> ServiceProviderConfig:
    """Return what this service provider supports. Spec: RFC 7643 5."""
    return ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(
            supported=True, max_operations=MAX_BULK_OPERATIONS, max_payload_size=MAX_BODY_BYTES
        ),
        filter=Filter(supported=True, max_results=MAX_RESULTS),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="OAuth Bearer Token",
                description="A token of the client, or an access token of the provider if that is "
                "declared (RFC 6750).",
                primary=True,
            )
        ],
        meta=Meta(
            resource_type="ServiceProviderConfig",
            location=Reference[External](f"{base_url}/ServiceProviderConfig"),
        ),
    )


def build_resource_types(
    models: Iterable[type[Resource[Any]]], base_url: str
) -> list[ResourceType]:
    """Return the types of resources. Spec: RFC 7643 6."""
    types = [ResourceType.from_resource(model) for model in models]
    for item in types:
        location = Reference[External](f"{base_url}/ResourceTypes/{item.id}")
        item.meta = Meta(resource_type="ResourceType", location=location)
    return types


def build_schemas(models: Iterable[type[Resource[Any]]], base_url: str) -> list[Schema]:
    """Return the schemas of the resources, their extensions and the discovery documents. Spec: RFC
    7643 7.
    """
    described: list[Any] = []
    for model in models:
        described += [model, *model.get_extension_models().values()]
    described += [ServiceProviderConfig, ResourceType, Schema]
    schemas = []
    for model in described:
        schema = model.to_schema()
        location = Reference[External](f"{base_url}/Schemas/{schema.id}")
        schema.meta = Meta(resource_type="Schema", location=location)
        schemas.append(schema)
    return schemas
