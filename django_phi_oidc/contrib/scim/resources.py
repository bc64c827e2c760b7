"""The operations on Users and Groups, from SCIM messages to use cases and back. Spec: RFC 7644 3.3
to 3.6, 3.14.

A failed precondition, an unknown id and a refused value are exceptions; `views` and `bulk` make
responses of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

from django.db import transaction
from django.db.models import QuerySet
from scim2_models import (
    Context,
    InvalidPathException,
    Meta,
    MutabilityException,
    NotFoundException,
    PatchOp,
    PreconditionFailedException,
    Reference,
    Resource,
    ResponseParameters,
    SearchRequest,
)

from ...audit.outbox import batch_delivery
from ...audit.request_context import use_origin
from . import conf, scim_groups, scim_users
from .member_operations import split_member_operations
from .models import SCIMGroup, SCIMUser
from .schemas import (
    MAX_PATH_CHARACTERS,
    MAX_RESULTS,
    POLICY,
    Group,
    GroupOfUser,
    Member,
    Subject,
    User,
)
from .scim_groups import MemberChange
from .scim_users import ClientRequest
from .search_conditions import (
    GROUP_COLLECTIONS,
    GROUP_COLUMNS,
    USER_COLLECTIONS,
    USER_COLUMNS,
    Column,
    Path,
    build_condition,
)

ANY_VERSION = "*"


def format_version(row: SCIMUser | SCIMGroup) -> str:
    """Return the entity tag, which is weak: representations may differ in their attributes. Spec:
    RFC 7644 3.14.
    """
    return f'W/"{row.version}"'


class ResourceEndpoint(ABC):
    """The operations of one client on one type of resources. base_url: of the service provider,
    without a slash.
    """

    name: ClassVar[Literal["User", "Group"]]
    columns: ClassVar[Mapping[Path, Column]]
    collections: ClassVar[Mapping[str, Any]]

    def __init__(self, request: ClientRequest, base_url: str) -> None:
        self.request = request
        self.base_url = base_url

    @property
    @abstractmethod
    def model(self) -> Any:
        """The class of the resources."""

    @abstractmethod
    def list_rows(self) -> QuerySet[Any]:
        """Return the rows that the client may see."""

    @abstractmethod
    def render(
        self, rows: Sequence[Any], *, is_complete: Callable[[str], bool]
    ) -> list[Resource[Any]]:
        """Return the resources of the rows. is_complete: whether a costly attribute is wanted."""

    @abstractmethod
    def _lock(self, resource_id: str) -> Any: ...

    @abstractmethod
    def _create(self, resource: Any) -> Any: ...

    @abstractmethod
    def _change(self, row: Any, resource: Any) -> Any: ...

    @abstractmethod
    def _delete(self, row: Any) -> None: ...

    def get_location(self, row: Any) -> str:
        return f"{self.base_url}/{self.name}s/{row.pk}"

    def get(self, resource_id: str) -> Any:
        """Return the row. Raises: NotFoundException."""
        pk = scim_users.parse_id(resource_id)
        if pk is None:
            row = None
        else:
            row = self.list_rows().filter(pk=pk).first()

        if row is None:
            raise NotFoundException
        return row

    def search(
        self, search: SearchRequest[Any], *, is_alone: bool = True
    ) -> tuple[int, list[Resource[Any]]]:
        """Return the number of resources that match, and a page of them.

        is_alone: False: other types are searched too, so an attribute that only they have matches
        nothing here.
        Raises: InvalidFilterException, InvalidPathException.
        """
        rows = self.list_rows()
        if search.filter is not None:
            rows = rows.filter(
                build_condition(
                    search.filter,
                    is_strict=is_alone,
                    columns=self.columns,
                    collections=self.collections,
                )
            )
        total = rows.count()
        start = (search.start_index or 1) - 1

        if search.count is None:
            count = MAX_RESULTS
        else:
            count = search.count

        # At most the number of all: databases refuse larger integers.
        start = min(start, total)
        page = list(
            rows.order_by(*self._list_order(search))[start : start + min(count, MAX_RESULTS)]
        )
        return total, self.render(page, is_complete=build_completeness(search))

    def create(self, data: Mapping[str, Any]) -> Any:
        """Create a resource and return its row. Raises: ValidationError, SCIMRefused."""
        resource = self.model.model_validate(
            data, scim_ctx=Context.RESOURCE_CREATION_REQUEST, scim_policy=POLICY
        )
        return self._create(resource)

    def replace(self, resource_id: str, data: Mapping[str, Any], *, if_match: str = "") -> Any:
        """Replace the attributes and return the row. An attribute that is missing stays as it is.

        if_match: entity tags, or empty. Raises: as `create`; NotFoundException,
        PreconditionFailedException.
        """
        context = Context.RESOURCE_REPLACEMENT_REQUEST
        new = self.model.model_validate(data, scim_ctx=context, scim_policy=POLICY)
        return self._change_locked(resource_id, if_match, lambda row: self._change(row, new))

    def patch(self, resource_id: str, data: Mapping[str, Any], *, if_match: str = "") -> Any:
        """Apply the operations, all or none, and return the row. Raises: as `replace`;
        SCIMException.
        """
        _validate_path_length(data)
        patch = PatchOp[self.model].model_validate(  # type: ignore[name-defined]  # known at run time only
            data, scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=POLICY
        )
        return self._change_locked(resource_id, if_match, lambda row: self._apply(row, patch))

    def delete(self, resource_id: str, *, if_match: str = "") -> None:
        """Delete the resource. Raises: NotFoundException, PreconditionFailedException."""
        with use_origin(lambda: self.request.origin), batch_delivery(), transaction.atomic():
            self._delete(self._get_locked(resource_id, if_match))

    def _change_locked(self, resource_id: str, if_match: str, change: Callable[[Any], Any]) -> Any:
        with use_origin(lambda: self.request.origin), batch_delivery(), transaction.atomic():
            return change(self._get_locked(resource_id, if_match))

    def _apply(self, row: Any, patch: Any) -> Any:
        (current,) = self.render([row], is_complete=lambda name: True)
        patch.patch(current, scim_policy=POLICY)
        return self._change(row, current)

    def _get_locked(self, resource_id: str, if_match: str) -> Any:
        row = self._lock(resource_id)
        if row is None:
            raise NotFoundException
        if if_match and not matches_version(row, if_match):
            raise PreconditionFailedException
        return row

    def _list_order(self, search: SearchRequest[Any]) -> list[str]:
        # By the time of creation: a page that is read later has no resource twice.
        order = ["created_at", "pk"]
        if search.sort_by is None:
            return order
        binding = search.sort_binding(self.model)
        column = None
        if binding:
            column = self.columns.get((binding.field_name, binding.sub_field_name))

        if column is None:
            raise InvalidPathException(detail="sortBy names an attribute that can't be sorted")
        is_descending = search.sort_order == SearchRequest.SortOrder.descending
        if is_descending:
            return [f"-{column.name}", *order]
        return [column.name, *order]

    def _build_meta(self, row: Any) -> Meta:
        return Meta(
            resource_type=self.name,
            created=row.created_at,
            last_modified=row.changed_at,
            location=Reference(self.get_location(row)),
            version=format_version(row),
        )


class UserEndpoint(ResourceEndpoint):
    """The users of the client's provider."""

    name = "User"
    columns = USER_COLUMNS
    collections = USER_COLLECTIONS

    @property
    def model(self) -> Any:
        has_subject = conf.scim()[self.request.provider.name].subject == "extension"
        model: Any = User

        if has_subject:
            return model[Subject]
        return model

    def list_rows(self) -> QuerySet[SCIMUser]:
        return scim_users.list_users(self.request.provider.name)

    def render(
        self, rows: Sequence[SCIMUser], *, is_complete: Callable[[str], bool]
    ) -> list[Resource[Any]]:
        if rows and is_complete("groups"):
            groups_by_user = scim_users.build_users_page(rows)
        else:
            groups_by_user = {}
        result = []
        for row in rows:
            result.append(
                self.model(
                    id=str(row.pk),
                    external_id=row.external_id or None,
                    meta=self._build_meta(row),
                    user_name=row.user_name,
                    active=row.active,
                    groups=self._render_groups(groups_by_user.get(row.pk, ())),
                )
            )
        return result

    def _render_groups(self, groups: Sequence[SCIMGroup]) -> list[GroupOfUser] | None:
        """Return None without groups, so that the attribute is left out."""
        rendered = []
        for group in groups:
            rendered.append(
                GroupOfUser(
                    value=str(group.pk),
                    ref=Reference(f"{self.base_url}/Groups/{group.pk}"),
                    display=group.display_name,
                )
            )
        return rendered or None

    def _lock(self, resource_id: str) -> SCIMUser | None:
        return scim_users.lock_user(resource_id, self.request.provider.name)

    def _create(self, resource: Any) -> SCIMUser:
        return scim_users.create_user(self._read(resource), self.request)

    def _change(self, row: SCIMUser, resource: Any) -> SCIMUser:
        return scim_users.change_user(row, self._read(resource, row), self.request)

    def delete(self, resource_id: str, *, if_match: str = "") -> None:
        with batch_delivery(), transaction.atomic():
            scim_groups.lock_groups_of_user(resource_id, self.request.provider.name)
            super().delete(resource_id, if_match=if_match)

    def _delete(self, row: SCIMUser) -> None:
        scim_users.delete_user(row, self.request)

    def _read(self, resource: Any, row: SCIMUser | None = None) -> scim_users.UserAttributes:
        """row: the user as it is, whose values stay if the resource does not name them."""
        sub = ""
        if Subject.__schema__ in type(resource).get_extension_models():
            subject = resource[Subject]
            if subject:
                sub = subject.sub or ""

        named = resource.model_fields_set
        if row and "external_id" not in named:
            external_id = row.external_id
        else:
            external_id = resource.external_id or ""

        if row and "active" not in named:
            active = row.active
        else:
            active = resource.active

        return scim_users.UserAttributes(
            user_name=resource.user_name or "",
            external_id=external_id,
            active=active,
            sub=sub,
        )


class GroupEndpoint(ResourceEndpoint):
    """The groups of the client's provider."""

    name = "Group"
    columns = GROUP_COLUMNS
    collections = GROUP_COLLECTIONS

    @property
    def model(self) -> Any:
        return Group

    def list_rows(self) -> QuerySet[SCIMGroup]:
        return scim_groups.list_groups(self.request.provider.name)

    def render(
        self, rows: Sequence[SCIMGroup], *, is_complete: Callable[[str], bool]
    ) -> list[Resource[Any]]:
        if rows and is_complete("members"):
            members = scim_groups.list_member_ids(rows)
        else:
            members = {}
        result: list[Resource[Any]] = []
        for row in rows:
            result.append(
                Group(
                    id=str(row.pk),
                    external_id=row.external_id or None,
                    meta=self._build_meta(row),
                    display_name=row.display_name,
                    members=self._render_members(members.get(row.pk, ())),
                )
            )
        return result

    def _render_members(self, ids: Sequence[str]) -> list[Member] | None:
        """Return None without members, so that the attribute is left out."""
        rendered = []
        for pk in ids:
            rendered.append(
                Member(value=pk, ref=Reference(f"{self.base_url}/Users/{pk}"), type="User")
            )
        return rendered or None

    def _lock(self, resource_id: str) -> SCIMGroup | None:
        return scim_groups.lock_group(resource_id, self.request.provider.name)

    def _create(self, resource: Any) -> SCIMGroup:
        return scim_groups.create_group(self._read(resource), self.request)

    def _change(self, row: SCIMGroup, resource: Any) -> SCIMGroup:
        return scim_groups.change_group(row, self._read(resource, row), self.request)

    def _apply(self, row: SCIMGroup, patch: Any) -> SCIMGroup:
        if (split := split_member_operations(patch)) is None:
            return cast(SCIMGroup, super()._apply(row, patch))
        members, others = split
        current: Any = self.render([row], is_complete=lambda name: False)[0]
        patch.model_copy(update={"operations": others}).patch(current, scim_policy=POLICY)
        if current.members is not None:
            # One of the others is about members, in a form that only scim2-models recognizes.
            return cast(SCIMGroup, super()._apply(row, patch))
        attributes = replace(self._read(current, row), members=members)
        return scim_groups.change_group(row, attributes, self.request)

    def _delete(self, row: SCIMGroup) -> None:
        scim_groups.delete_group(row, self.request)

    def _read(self, resource: Any, row: SCIMGroup | None = None) -> scim_groups.GroupAttributes:
        if any(not member.value for member in resource.members or ()):
            raise MutabilityException(detail="a member needs a value")
        named = resource.model_fields_set
        if row and "external_id" not in named:
            external_id = row.external_id
        else:
            external_id = resource.external_id or ""

        if row and "members" not in named:
            members = MemberChange()
        else:
            members = MemberChange().replace(member.value for member in resource.members or ())

        return scim_groups.GroupAttributes(
            display_name=resource.display_name or "",
            external_id=external_id,
            members=members,
        )


ENDPOINTS: Mapping[str, type[ResourceEndpoint]] = {"Users": UserEndpoint, "Groups": GroupEndpoint}


def _validate_path_length(data: Mapping[str, Any]) -> None:
    """Raises: InvalidPathException. Before the paths are parsed, and for each spelling of their
    name.
    """
    size = 0
    for items in data.values():
        if not isinstance(items, list):
            continue
        for item in items:
            if isinstance(item, Mapping):
                size += _count_path_characters(item)
    if size > MAX_PATH_CHARACTERS:
        raise InvalidPathException(
            detail=f"the paths of a request have at most {MAX_PATH_CHARACTERS} characters"
        )


def _count_path_characters(operation: Mapping[str, Any]) -> int:
    count = 0
    for name, text in operation.items():
        if name != "value" and isinstance(text, str):
            count += len(text)
    return count


def matches_version(row: Any, entity_tags: str) -> bool:
    """Return whether one of the tags of If-Match or If-None-Match is that of the row. Spec: RFC
    9110 8.8.3.2 (weak).
    """
    tags = {tag.strip().removeprefix("W/") for tag in entity_tags.split(",")}
    return ANY_VERSION in tags or format_version(row).removeprefix("W/") in tags


def build_completeness(parameters: ResponseParameters[Any]) -> Callable[[str], bool]:
    """Return a function that says whether the response has an attribute, by its name."""
    wanted = set()
    for path in parameters.attributes or ():
        wanted.add(str(path).rpartition(":")[2].partition(".")[0].lower())
    excluded = set()
    for path in parameters.excluded_attributes or ():
        excluded.add(str(path).rpartition(":")[2].lower())

    def is_complete(name: str) -> bool:
        if wanted:
            return name in wanted
        return name not in excluded

    return is_complete
