"""Filters find the rows that RFC 7644 3.4.2.2 says, or are refused; values never become SQL."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.scim_fixtures import SCIM

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
FOUND = {
    'userName eq "ann"': "ann",
    'userName eq "ANN"': "ann",
    'USERNAME EQ "Ann"': "ann",
    'userName ne "ann"': "bob cy",
    'userName co "n"': "ann",
    'userName sw "b"': "bob",
    'userName ew "y"': "cy",
    'userName gt "ann"': "bob cy",
    'userName ge "bob"': "bob cy",
    'userName lt "bob"': "ann",
    'userName le "bob"': "ann bob",
    "userName pr": "ann bob cy",
    "externalId pr": "ann bob",
    'externalId eq "E1"': "ann",
    'externalId eq "e1"': "",
    "externalId eq null": "cy",
    "active eq true": "ann bob",
    "active eq false": "cy",
    "active ne true": "cy",
    'userName eq "ann" or userName eq "cy"': "ann cy",
    'userName eq "ann" and active eq false': "",
    'userName eq "cy" or userName eq "ann" and active eq true': "ann cy",
    '(userName eq "cy" or userName eq "ann") and active eq true': "ann",
    'not (userName eq "ann")': "bob cy",
    'not (userName eq "ann" or active eq false)': "bob",
    'groups.display eq "nurses"': "ann",
    'groups[display eq "Nurses"]': "ann",
    'groups[display sw "n" and value pr]': "ann",
    "groups pr": "ann",
    "not (groups pr)": "bob cy",
    'meta.lastModified gt "2020-01-01T00:00:00Z"': "ann bob cy",
    'meta.created lt "2020-01-01T00:00:00Z"': "",
    'id eq "not an id"': "",
    'urn:ietf:params:scim:schemas:core:2.0:User:userName eq "ann"': "ann",
    'userName eq "ann\\" or userName pr or userName eq \\""': "",
    "userName eq \"ann' OR '1'='1\"": "",
    'userName co "%"': "",
    'userName co "_"': "",
    'userName eq "\\u0000"': "",
}
REFUSED = {
    "an unknown attribute": 'nickName eq "a"',
    "an attribute that is not stored": 'emails.value eq "a@b.example"',
    "the sub": 'urn:ietf:params:scim:schemas:extension:phi_oidc:2.0:User:sub eq "s"',
    "no operator": "userName",
    "an unknown operator": 'userName like "a"',
    "no quotes": "userName eq ann",
    "single quotes": "userName eq 'ann'",
    "an open bracket": '(userName eq "ann"',
    "an operator of another type": "active gt true",
    "a value of another type": 'active eq "perhaps"',
    "a part of an id": 'id sw "a"',
    "a statement": "userName pr; DROP TABLE auth_user",
    "an attribute of a table": "user__password pr",
    "too many terms": " or ".join(['userName eq "a"'] * 60),
    "too many characters": f'userName eq "{"a" * 3000}"',
    "a number as a text": "groups[display eq 5]",
    "a Boolean as a text": "groups[value pr and (display co true)]",
    "a time before the first": 'meta.created gt "0001-01-01T00:00:00+14:00"',
    "a time after the last": 'meta.created lt "9999-12-31T23:59:59-14:00"',
    "deep nesting": "not (" * 100 + "userName pr" + ")" * 100,
}


@pytest.fixture
def people(scim: SCIM) -> SCIM:
    """Create ann, in a group and with an externalId; bob; and cy, who is not active."""
    ann = scim.create("Ann", externalId="E1")
    scim.create("bob", externalId="E2")
    scim.create("cy", active=False)
    scim.create_group("Nurses", ann["id"])
    return scim


@pytest.mark.parametrize(("text", "names"), FOUND.items(), ids=FOUND)
def test_filter_finds(text: str, names: str, people: SCIM) -> None:
    response = people.send("GET", f"Users?filter={quote(text)}")
    assert response.status_code == 200, response.content
    found = sorted(user["userName"].lower() for user in response.json().get("Resources", []))
    assert found == names.split()
    assert response.json()["totalResults"] == len(found)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_filter_is_refused(text: str, people: SCIM) -> None:
    response = people.send("GET", f"Users?filter={quote(text)}")
    assert (response.status_code, response.json()["scimType"]) == (400, "invalidFilter"), response.content


def test_terms_in_brackets_count_as_others(people: SCIM) -> None:
    for count, status in ((20, 200), (60, 400)):
        text = "groups[" + " or ".join(['display eq "a"'] * count) + "]"
        assert people.send("GET", f"Users?filter={quote(text)}").status_code == status


def test_filter_of_groups_by_member(people: SCIM) -> None:
    query = quote('userName eq "ann"')
    ann = people.send("GET", f"Users?filter={query}").json()["Resources"][0]["id"]
    for text, count in ((f'members.value eq "{ann}"', 1), (f'members[value eq "{ann}"]', 1), ('members eq "x"', 0)):
        assert people.send("GET", f"Groups?filter={quote(text)}").json()["totalResults"] == count


def test_search_by_post_and_over_all_types(people: SCIM) -> None:
    schema = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
    text = 'userName eq "bob" or displayName eq "nurses"'
    everything = people.send("POST", ".search", {"schemas": [schema], "filter": text}).json()
    assert [item["meta"]["resourceType"] for item in everything["Resources"]] == ["User", "Group"]
    users = people.send("POST", "Users/.search", {"schemas": [schema], "filter": 'userName eq "bob"'}).json()
    assert users["totalResults"] == 1


PAGES: dict[str, tuple[str, list[str], int]] = {
    "the first two": ("startIndex=1&count=2", ["ann", "bob"], 1),
    "the rest": ("startIndex=3&count=2", ["cy"], 3),
    "beyond the end": ("startIndex=9", [], 9),
    "an index that no database has": (f"startIndex={10**30}", [], 10**30),
    "a count that no database has": (f"count={10**30}", ["ann", "bob", "cy"], 1),
    "an index below 1": ("startIndex=-3&count=1", ["ann"], 1),
    "none, only the number": ("count=0", [], 1),
    "a negative count": ("count=-1", [], 1),
    "sorted": ("sortBy=userName&sortOrder=descending", ["cy", "bob", "ann"], 1),
}


@pytest.mark.parametrize(("query", "names", "start"), PAGES.values(), ids=PAGES)
def test_pages(query: str, names: list[str], start: int, people: SCIM) -> None:
    page = people.send("GET", f"Users?{query}").json()
    assert [user["userName"].lower() for user in page.get("Resources", [])] == names
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (3, start, len(names))


def test_attributes_are_selected(people: SCIM, django_assert_num_queries: Callable[..., Any]) -> None:
    one = people.send("GET", "Users?count=1&attributes=userName").json()["Resources"][0]
    assert one.keys() == {"schemas", "id", "userName"}
    group = people.send("GET", "Groups?excludedAttributes=members").json()["Resources"][0]
    assert "members" not in group
