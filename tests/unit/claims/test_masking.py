"""A masked claim is revealed only with a purpose, and by no other operation."""

import copy
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError, connection, connections
from django.template import Context, Engine, Template, TemplateSyntaxError
from django.test.utils import CaptureQueriesContext
from django.utils.html import conditional_escape, format_html, json_script

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.disclosure import RevealResult
from django_phi_oidc.claims.masking import MaskedClaim
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused
from django_phi_oidc.fields import MASK
from tests.support.claims_fixtures import DAY, NOW, Person

pytestmark = pytest.mark.django_db
VALUE = "1990-05-17 & <b>"


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def claim(person: Person) -> MaskedClaim:
    person.store({"birthdate": VALUE, "address": {"locality": "Bern"}})
    return MaskedClaim(person.actor(), person.user, "birthdate")


def count_events() -> int:
    return AuditEvent.objects.filter(action__in=["claim.revealed", "access.denied"]).count()


def render(source: str, **context: Any) -> str:
    return Template("{% load phi_oidc %}" + source).render(Context(context))


def format_log_message(claim: MaskedClaim) -> str:
    record = logging.LogRecord("host", logging.INFO, "", 0, "%s %r", (claim, claim), None)
    return record.getMessage()


MASKED: dict[str, tuple[Callable[[Any], str], str]] = {
    "str": (str, MASK),
    "repr": (repr, MASK),
    "an f-string": (lambda claim: f"{claim}", MASK),
    "an f-string with a width": (lambda claim: f"{claim:>30}", MASK),
    "percent": (lambda claim: "%s" % claim, MASK),  # noqa: UP031 -- this conversion is tested
    "format": ("{0!r} {0!s} {0}".format, f"{MASK} {MASK} {MASK}"),
    "ascii": (ascii, ascii(MASK).strip("'")),
    "repr of a container": (lambda claim: repr([claim, {"a": claim}]), f"[{MASK}, {{'a': {MASK}}}]"),
    "html": (lambda claim: claim.__html__(), MASK),
    "conditional_escape": (conditional_escape, MASK),
    "format_html": (lambda claim: format_html("<b>{}</b>", claim), f"<b>{MASK}</b>"),
    "a log": (format_log_message, f"{MASK} {MASK}"),
    "a template": (lambda claim: render("{{ claim }}", claim=claim), MASK),
    "a template, safe": (lambda claim: render("{{ claim|safe }}", claim=claim), MASK),
    "a template, without escaping": (
        lambda claim: render("{% autoescape off %}{{ claim }}{% endautoescape %}", claim=claim),
        MASK,
    ),
    "a template's filters": (
        lambda claim: render("{{ claim|upper }}{{ claim|pprint }}{{ claim|stringformat:'s' }}", claim=claim),
        MASK * 3,
    ),
    "a call in a template": (lambda claim: render("[{{ claim.reveal }}]", claim=claim), "[]"),
    "attribute lookups in a template": (
        lambda claim: render("[{{ claim.value }}{{ claim.0 }}{{ claim.locality }}{{ claim.error }}]", claim=claim),
        "[]",
    ),
    "a template's join": (lambda claim: render("{{ claim|join:',' }}", claim=claim), MASK),
}
REFUSED: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "not": lambda claim: not claim,
    "or": lambda claim: claim or "nothing",
    "len": len,
    "iter": iter,
    "list": list,
    "in": lambda claim: "1990" in claim,
    "an index": lambda claim: claim[0],
    "a comparison": lambda claim: claim < "2000",
    "int": int,
    "json": json.dumps,
    "nested json": lambda claim: json.dumps({"a": [claim]}),
    "Django's json": lambda claim: json.dumps(claim, cls=DjangoJSONEncoder),
    "json_script": lambda claim: json_script(claim, "id"),
    "pickle": pickle.dumps,
    "pickle protocol 0": lambda claim: pickle.dumps(claim, protocol=0),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "a template's if": lambda claim: render("{% if claim %}yes{% endif %}", claim=claim),
    "a template's for": lambda claim: render("{% for x in claim %}{{ x }}{% endfor %}", claim=claim),
    "a template's default": lambda claim: render("{{ claim|default:'none' }}", claim=claim),
    "a template's yesno": lambda claim: render("{{ claim|yesno }}", claim=claim),
    "a reveal without a purpose": lambda claim: claim.reveal(),
    "a reveal with a positional purpose": lambda claim: claim.reveal("TREAT"),
}


@pytest.mark.parametrize(("show", "shown"), MASKED.values(), ids=MASKED)
def test_text_of_a_masked_claim_is_the_mask_without_queries(
    show: Callable[[Any], str], shown: str, claim: MaskedClaim
) -> None:
    with (
        CaptureQueriesContext(connection) as default_queries,
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
    ):
        assert show(claim) == shown
    assert (len(default_queries), len(audit_queries)) == (0, 0)
    assert claim.reveal(purpose="TREAT") == VALUE


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_operation_that_needs_the_value_raises_type_error(use: Callable[[Any], Any], claim: MaskedClaim) -> None:
    captures = CaptureQueriesContext(connection), CaptureQueriesContext(connections["phi_audit"])
    with captures[0] as default_queries, captures[1] as audit_queries, pytest.raises(TypeError):
        use(claim)
    assert (len(default_queries), len(audit_queries)) == (0, 0)
    assert claim.reveal(purpose="TREAT") == VALUE


def test_revealed_masked_claim_stores_no_value(claim: MaskedClaim) -> None:
    assert claim.reveal(purpose="TREAT") == VALUE
    assert (str(claim), hasattr(claim, "__dict__")) == (MASK, False)
    assert {str(getattr(claim, name)) for name in claim.__slots__}.isdisjoint({VALUE})
    with pytest.raises(TypeError):
        pickle.dumps(claim)


def test_reveal_of_a_masked_claim_is_recorded_and_refused_like_reveal(person: Person, claim: MaskedClaim) -> None:
    assert [claim.reveal(purpose=purpose) for purpose in ("TREAT", "PATRQT")] == [VALUE, VALUE]
    assert count_events() == 2
    with pytest.raises(RevealRefused) as refused:
        claim.reveal(purpose="HMARKT")
    assert (refused.value.reason, count_events()) == ("purpose_not_declared", 3)
    address = MaskedClaim(person.actor(), person.user, "address")
    with clock.override_clock(lambda: NOW + DAY), pytest.raises(ClaimScrubbed):
        address.reveal(purpose="HOPERAT")


def test_masked_claim_returns_its_declaration(person: Person, claim: MaskedClaim) -> None:
    assert claim.declared is not None
    assert (claim.declared.purpose, claim.declared.basis, claim.declared.retention) == (
        *("TREAT", "identity check", "session"),
    )
    assert MaskedClaim(person.actor(), person.user, "ssn").declared is None


def test_tag_renders_the_escaped_value_and_records_it(claim: MaskedClaim) -> None:
    assert render('{% reveal claim purpose="TREAT" %}', claim=claim) == "1990-05-17 &amp; &lt;b&gt;"
    assert render("{% reveal claim purpose=code %}", claim=claim, code="PATRQT") == "1990-05-17 &amp; &lt;b&gt;"
    purposes = AuditEvent.objects.filter(action="claim.revealed").values_list("purpose", flat=True)
    assert sorted(purposes) == ["PATRQT", "TREAT"]


def test_tag_with_as_renders_nothing_and_stores_the_result(person: Person, claim: MaskedClaim) -> None:
    address = MaskedClaim(person.actor(), person.user, "address")
    source = '{% reveal claim purpose="HOPERAT" as it %}[{{ it }}][{{ it.value.locality }}][{{ it.is_refused }}]'
    result = RevealResult(name="address")
    assert render(source, claim=address) == f"[{conditional_escape(result)}][Bern][False]"
    refused = render(source, claim=claim)
    assert refused.endswith("[][True]")
    assert count_events() == 2


@pytest.mark.parametrize(
    ("name", "purpose", "at", "expected"),
    [
        ("birthdate", "TREAT", NOW, "1990-05-17 &amp; &lt;b&gt;"),
        ("birthdate", "HMARKT", NOW, MASK),
        ("birthdate", "", NOW, MASK),
        ("ssn", "TREAT", NOW, MASK),
        ("allergies", "TREAT", NOW, ""),
        ("address", "HOPERAT", NOW + DAY, ""),
    ],
)
def test_tag_renders_the_mask_if_refused_and_nothing_if_missing(
    name: str, purpose: str, at: Any, expected: str, person: Person, claim: MaskedClaim
) -> None:
    with clock.override_clock(lambda: at):
        shown = render(
            "{% reveal claim purpose=code %}", claim=MaskedClaim(person.actor(), person.user, name), code=purpose
        )
    assert (shown, count_events()) == (expected, 1)


def test_tag_without_the_audit_database_raises(claim: MaskedClaim) -> None:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is unavailable")

    with connections["phi_audit"].execute_wrapper(fail), pytest.raises(AuditUnavailable):
        render('{% reveal claim purpose="TREAT" %}', claim=claim)
    assert render('{% reveal claim purpose="TREAT" %}', claim=claim) != ""


@pytest.mark.parametrize("value", ["1990-05-17", None, ""])
def test_tag_requires_a_masked_claim(value: Any, claim: MaskedClaim) -> None:
    with pytest.raises(TypeError, match="MaskedClaim"):
        render('{% reveal claim purpose="TREAT" %}', claim=value)


VALID_TAG = '{% reveal claim purpose="TREAT" as it %}'
INVALID_TAGS = {
    "no purpose": "{% reveal claim %}",
    "a purpose by position": '{% reveal claim "TREAT" %}',
    "no claim": '{% reveal purpose="TREAT" %}',
    "nothing": "{% reveal %}",
    "another keyword": '{% reveal claim code="TREAT" %}',
    "two purposes": '{% reveal claim purpose="TREAT" purpose="PATRQT" %}',
    "as without a name": '{% reveal claim purpose="TREAT" as %}',
    "in a cache block": f"{{% load cache %}}{{% cache 600 name %}}{VALID_TAG}{{% endcache %}}",
    "nested in a cache": f"{{% load cache %}}{{% cache 9 name %}}{{% if 1 %}}{VALID_TAG}{{% endif %}}{{% endcache %}}",
}


@pytest.mark.parametrize("source", INVALID_TAGS.values(), ids=INVALID_TAGS)
def test_invalid_or_cached_tag_does_not_compile(source: str) -> None:
    Template("{% load phi_oidc cache %}{% cache 600 name %}{% endcache %}{% if 1 %}" + VALID_TAG + "{% endif %}")
    with pytest.raises(TemplateSyntaxError):
        Template("{% load phi_oidc %}" + source)


TEMPLATES = {
    "tag": "{% load phi_oidc %}" + VALID_TAG,
    "include": "{% load cache %}{% cache 600 name %}{% include 'tag' %}{% endcache %}",
    "base": "{% load cache %}{% cache 600 name %}{% block born %}{% endblock %}{% endcache %}",
    "extends": "{% extends 'base' %}{% load phi_oidc %}{% block born %}" + VALID_TAG + "{% endblock %}",
}


@pytest.mark.parametrize("name", ["include", "extends"])
def test_tag_in_a_cache_block_of_another_template_raises_before_a_reveal(name: str, claim: MaskedClaim) -> None:
    cache.clear()
    engine = Engine(
        loaders=[("django.template.loaders.locmem.Loader", TEMPLATES)],
        libraries={"cache": "django.templatetags.cache", "phi_oidc": "django_phi_oidc.templatetags.phi_oidc"},
    )
    engine.get_template("tag").render(Context({"claim": claim}))
    assert count_events() == 1
    with pytest.raises(TemplateSyntaxError, match="cache block"):
        engine.get_template(name).render(Context({"claim": claim}))
    assert count_events() == 1
