"""What a template holds of a claim opens by a purpose alone, and by nothing that happens to it."""

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


def looks() -> int:
    return AuditEvent.objects.filter(action__in=["claim.revealed", "access.denied"]).count()


def render(source: str, **context: Any) -> str:
    return Template("{% load phi_oidc %}" + source).render(Context(context))


def logged(claim: MaskedClaim) -> str:
    record = logging.LogRecord("host", logging.INFO, "", 0, "%s %r", (claim, claim), None)
    return record.getMessage()


MASKED: dict[str, tuple[Callable[[Any], str], str]] = {
    "str": (str, MASK),
    "repr": (repr, MASK),
    "an f-string": (lambda claim: f"{claim}", MASK),
    "an f-string with a width": (lambda claim: f"{claim:>30}", MASK),
    "percent": (lambda claim: "%s" % claim, MASK),  # noqa: UP031 -- that way too
    "format": ("{0!r} {0!s} {0}".format, f"{MASK} {MASK} {MASK}"),
    "ascii": (ascii, ascii(MASK).strip("'")),
    "repr of a container": (lambda claim: repr([claim, {"a": claim}]), f"[{MASK}, {{'a': {MASK}}}]"),
    "html": (lambda claim: claim.__html__(), MASK),
    "conditional_escape": (conditional_escape, MASK),
    "format_html": (lambda claim: format_html("<b>{}</b>", claim), f"<b>{MASK}</b>"),
    "a log": (logged, f"{MASK} {MASK}"),
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
    "a template that calls": (lambda claim: render("[{{ claim.reveal }}]", claim=claim), "[]"),
    "a template that looks inside": (
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
    "json inside": lambda claim: json.dumps({"a": [claim]}),
    "Django's json": lambda claim: json.dumps(claim, cls=DjangoJSONEncoder),
    "json_script": lambda claim: json_script(claim, "id"),
    "pickle": pickle.dumps,
    "pickle, the oldest": lambda claim: pickle.dumps(claim, protocol=0),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "a template's if": lambda claim: render("{% if claim %}yes{% endif %}", claim=claim),
    "a template's for": lambda claim: render("{% for x in claim %}{{ x }}{% endfor %}", claim=claim),
    "a template's default": lambda claim: render("{{ claim|default:'none' }}", claim=claim),
    "a template's yesno": lambda claim: render("{{ claim|yesno }}", claim=claim),
    "a reveal without a purpose": lambda claim: claim.reveal(),
    "a reveal with the purpose in front": lambda claim: claim.reveal("TREAT"),
}


@pytest.mark.parametrize(("show", "shown"), MASKED.values(), ids=MASKED)
def test_masked_claim_as_text_is_the_mask_and_asks_nothing(
    show: Callable[[Any], str], shown: str, claim: MaskedClaim
) -> None:
    with CaptureQueriesContext(connection) as ours, CaptureQueriesContext(connections["phi_audit"]) as trail:
        assert show(claim) == shown
    assert (len(ours), len(trail)) == (0, 0)
    assert claim.reveal(purpose="TREAT") == VALUE


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_masked_claim_where_the_value_is_needed_is_refused(use: Callable[[Any], Any], claim: MaskedClaim) -> None:
    counting = CaptureQueriesContext(connection), CaptureQueriesContext(connections["phi_audit"])
    with counting[0] as ours, counting[1] as trail, pytest.raises(TypeError):
        use(claim)
    assert (len(ours), len(trail)) == (0, 0)
    assert claim.reveal(purpose="TREAT") == VALUE


def test_masked_claim_that_was_revealed_holds_no_value(claim: MaskedClaim) -> None:
    assert claim.reveal(purpose="TREAT") == VALUE
    assert (str(claim), hasattr(claim, "__dict__")) == (MASK, False)
    assert {str(getattr(claim, name)) for name in claim.__slots__}.isdisjoint({VALUE})
    with pytest.raises(TypeError):
        pickle.dumps(claim)


def test_masked_claim_is_recorded_and_refused_as_reveal_is(person: Person, claim: MaskedClaim) -> None:
    assert [claim.reveal(purpose=purpose) for purpose in ("TREAT", "PATRQT")] == [VALUE, VALUE]
    assert looks() == 2
    with pytest.raises(RevealRefused) as refused:
        claim.reveal(purpose="HMARKT")
    assert (refused.value.reason, looks()) == ("purpose_not_declared", 3)
    address = MaskedClaim(person.actor(), person.user, "address")
    with clock.override_clock(lambda: NOW + DAY), pytest.raises(ClaimScrubbed):
        address.reveal(purpose="HOPERAT")


def test_masked_claim_tells_what_is_declared_of_it(person: Person, claim: MaskedClaim) -> None:
    assert claim.declared is not None
    assert (claim.declared.purpose, claim.declared.basis, claim.declared.retention) == (
        *("TREAT", "identity check", "session"),
    )
    assert MaskedClaim(person.actor(), person.user, "ssn").declared is None


def test_tag_with_a_purpose_writes_the_value_escaped_and_tells(claim: MaskedClaim) -> None:
    assert render('{% reveal claim purpose="TREAT" %}', claim=claim) == "1990-05-17 &amp; &lt;b&gt;"
    assert render("{% reveal claim purpose=why %}", claim=claim, why="PATRQT") == "1990-05-17 &amp; &lt;b&gt;"
    purposes = AuditEvent.objects.filter(action="claim.revealed").values_list("purpose", flat=True)
    assert sorted(purposes) == ["PATRQT", "TREAT"]


def test_tag_with_as_writes_nothing_and_gives_what_came_of_it(person: Person, claim: MaskedClaim) -> None:
    address = MaskedClaim(person.actor(), person.user, "address")
    source = '{% reveal claim purpose="HOPERAT" as it %}[{{ it }}][{{ it.value.locality }}][{{ it.is_refused }}]'
    shown = RevealResult(name="address")
    assert render(source, claim=address) == f"[{conditional_escape(shown)}][Bern][False]"
    refused = render(source, claim=claim)
    assert refused.endswith("[][True]")
    assert looks() == 2


@pytest.mark.parametrize(
    ("name", "purpose", "at", "written"),
    [
        ("birthdate", "TREAT", NOW, "1990-05-17 &amp; &lt;b&gt;"),
        ("birthdate", "HMARKT", NOW, MASK),
        ("birthdate", "", NOW, MASK),
        ("ssn", "TREAT", NOW, MASK),
        ("allergies", "TREAT", NOW, ""),
        ("address", "HOPERAT", NOW + DAY, ""),
    ],
)
def test_tag_writes_the_mask_where_it_is_refused_and_nothing_where_there_is_nothing(
    name: str, purpose: str, at: Any, written: str, person: Person, claim: MaskedClaim
) -> None:
    with clock.override_clock(lambda: at):
        shown = render(
            "{% reveal claim purpose=why %}", claim=MaskedClaim(person.actor(), person.user, name), why=purpose
        )
    assert (shown, looks()) == (written, 1)


def test_tag_without_the_audit_database_ends_the_page(claim: MaskedClaim) -> None:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is away")

    with connections["phi_audit"].execute_wrapper(fail), pytest.raises(AuditUnavailable):
        render('{% reveal claim purpose="TREAT" %}', claim=claim)
    assert render('{% reveal claim purpose="TREAT" %}', claim=claim) != ""


@pytest.mark.parametrize("what", ["1990-05-17", None, ""])
def test_tag_of_what_is_no_masked_claim_is_refused(what: Any, claim: MaskedClaim) -> None:
    with pytest.raises(TypeError, match="MaskedClaim"):
        render('{% reveal claim purpose="TREAT" %}', claim=what)


GOOD = '{% reveal claim purpose="TREAT" as it %}'
MISSPELT = {
    "no purpose": "{% reveal claim %}",
    "a purpose by position": '{% reveal claim "TREAT" %}',
    "no claim": '{% reveal purpose="TREAT" %}',
    "nothing": "{% reveal %}",
    "another word": '{% reveal claim why="TREAT" %}',
    "two purposes": '{% reveal claim purpose="TREAT" purpose="PATRQT" %}',
    "as without a name": '{% reveal claim purpose="TREAT" as %}',
    "in a cache block": f"{{% load cache %}}{{% cache 600 name %}}{GOOD}{{% endcache %}}",
    "deep in a cache block": f"{{% load cache %}}{{% cache 600 name %}}{{% if 1 %}}{GOOD}{{% endif %}}{{% endcache %}}",
}


@pytest.mark.parametrize("source", MISSPELT.values(), ids=MISSPELT)
def test_tag_misspelt_or_where_it_would_be_cached_does_not_compile(source: str) -> None:
    Template("{% load phi_oidc cache %}{% cache 600 name %}{% endcache %}{% if 1 %}" + GOOD + "{% endif %}")
    with pytest.raises(TemplateSyntaxError):
        Template("{% load phi_oidc %}" + source)


PARTS = {
    "tag": "{% load phi_oidc %}" + GOOD,
    "include": "{% load cache %}{% cache 600 name %}{% include 'tag' %}{% endcache %}",
    "base": "{% load cache %}{% cache 600 name %}{% block born %}{% endblock %}{% endcache %}",
    "extends": "{% extends 'base' %}{% load phi_oidc %}{% block born %}" + GOOD + "{% endblock %}",
}


@pytest.mark.parametrize("name", ["include", "extends"])
def test_tag_in_a_cache_block_of_another_template_is_refused_before_a_look(name: str, claim: MaskedClaim) -> None:
    cache.clear()
    engine = Engine(
        loaders=[("django.template.loaders.locmem.Loader", PARTS)],
        libraries={"cache": "django.templatetags.cache", "phi_oidc": "django_phi_oidc.templatetags.phi_oidc"},
    )
    engine.get_template("tag").render(Context({"claim": claim}))
    assert looks() == 1
    with pytest.raises(TemplateSyntaxError, match="cache block"):
        engine.get_template(name).render(Context({"claim": claim}))
    assert looks() == 1
