"""One person's life in the portal: a list of steps, each of which holds or does not."""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from django.db import DatabaseError, connections

from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession

from . import canary_setup, emergency_scene, hostile_provider, plaintext_search
from .browser import Browser, Page
from .scene import NotHeld, Scene, eventually, expect, tokens_of
from .services import RETENTION_SECONDS

MOST_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step by its title. `tell` plays it and returns what there is to say; the trail must have `events` then."""

    title: str
    tell: Callable[[Scene], str]
    events: tuple[str, ...] = ()


def sign_in(scene: Scene) -> str:
    """Amina comes to her own page."""
    page = scene.sign_in_amina()
    expect(page.status == 200 and page.path == "/portal/", f"she came to {page.path} with {page.status}")
    expect("data-user=" in page.text, "the page does not know her")
    expect(scene.amina.username not in page.text, "the page calls her by a name that the portal should not know")
    return "She gave her password to her identity provider alone, and came back to a page of her own."


def sealed_at_rest(scene: Scene) -> str:
    """Nothing that must not be readable is readable in any file; what was planted is found by the same search."""
    expect(StoredClaim.objects.filter(name="birthdate").exists(), "the portal holds nothing that could be sealed")
    secrets = {
        "her date of birth": str(scene.amina.claims["birthdate"]),
        "her street": str(scene.amina.claims["address"]["street_address"]),
        "her e-mail address": str(scene.amina.claims["email"]),
        "her name": str(scene.amina.claims["family_name"]),
        "her sub": str(scene.introspect(scene.tokens["access token"])["sub"]),
        **{f"her {name}": token for name, token in scene.tokens.items()},
    }
    with canary_setup.control(scene.var) as (planted, text):
        seen = plaintext_search.search({"control": text}, scene.var)
        missed = [name for name in planted if f"control in {name}" not in seen and f"control in {name}-wal" not in seen]
        expect(not missed, f"the search is blind: it missed what was planted in {', '.join(missed)}")
    hits = plaintext_search.search(secrets, scene.var)
    expect(not hits, f"readable: {', '.join(hits)}")
    return (
        f"The search found what was planted in {len(planted)} places ({', '.join(planted)}), and nowhere in databases, "
        f"queue and logs one of {len(secrets)} secrets: her name, her sub, her claims, her tokens."
    )


def reveal_for_a_purpose(scene: Scene) -> str:
    """Amina chooses a purpose and sees what is held."""
    page, again = look(scene), ""
    for _ in range(MOST_TRIES):
        if "Erased" not in page.text:
            break
        again = " (This machine is slow and her address was gone already: she signed in once more.)"
        scene.browser = Browser()
        scene.sign_in_amina()
        page = look(scene)
    expect(page.status == 200, f"the page answered {page.status}")
    expect(str(scene.amina.claims["birthdate"]) in page.text, "her date of birth is not on the page")
    expect(str(scene.amina.claims["address"]["street_address"]) in page.text, "her address is not on the page")
    expect("no-store" in page.headers.get("Cache-Control", ""), "the page may be stored")
    return f"She said why, the trail took note, and only then her date of birth and her address were opened.{again}"


def look(scene: Scene) -> Page:
    """Let Amina see her details on her own request."""
    form = scene.browser.open(f"{scene.portal}/portal/profile/")
    expect(str(scene.amina.claims["birthdate"]) not in form.text, "it was shown before a purpose was chosen")
    return scene.browser.submit(form, {"purpose": "PATRQT"})


def step_up(scene: Scene) -> str:
    """Her chart wants more than a password; she comes back to it, in the same session."""
    before = OIDCSession.objects.filter(ended_at=None).latest("started_at")
    login = scene.browser.open(f"{scene.portal}/portal/chart/")
    expect(login.url.startswith(scene.provider), f"the portal answered {login.status} and did not lead to the provider")
    page = scene.browser.submit(login, scene.answer(scene.amina))
    expect(page.status == 200 and page.path == "/portal/chart/", f"she came to {page.path} with {page.status}")
    expect("data-chart=" in page.text, "the chart is not on the page")
    after = OIDCSession.objects.get(pk=before.pk)
    expect(after.ended_at is None and after.acr != before.acr, "her session is not a stronger one")
    scene.tokens = tokens_of(after)
    return (
        "She was asked for a second proof and came back to her chart, which her session was too weak for. It is the "
        f"same session, now of {after.acr}."
    )


def replay(scene: Scene) -> str:
    """The callback's address, opened once more, is refused, and the one who is signed in stays so."""
    page = scene.browser.open(scene.callback)
    expect(page.status == 403, f"the portal answered {page.status}")
    expect("state_replayed" not in page.text, "the page tells the reason")
    still = scene.browser.open(f"{scene.portal}/portal/")
    expect(still.status == 200 and "data-user=" in still.text, "the refusal signed her out")
    return "The address of her way back worked once. The second time it got a plain page with a reference, and 403."


def other_browser(scene: Scene) -> str:
    """A way back that was begun in one browser is refused in another."""
    held = scene.authenticate(Browser(), scene.jonas, hold=True)
    page = Browser().open(held.location)
    expect(page.status == 403, f"the portal answered {page.status}")
    expect("state_unknown" not in page.text, "the page tells the reason")
    return "Jonas began in his browser. Somebody who got hold of the address of his way back opened it in another: 403."


def forged_token(scene: Scene) -> str:
    """A token under a foreign key is refused, and what came with it dies at the provider."""
    scene.order(hostile_provider.FORGED_SIGNATURE)
    page = scene.authenticate(Browser(), scene.jonas, hold=False)
    expect(page.status == 403, f"the portal answered {page.status}")
    expect("signature_invalid" not in page.text, "the page tells the reason")
    issued = scene.issued_last()
    expect(len(issued) == 2, f"the provider issued {len(issued)} tokens, not two")
    eventually(lambda: not any(map(scene.is_alive, issued)), "tokens of the refused sign-in are alive at the provider")
    return (
        "The provider signed with a foreign key: 403, and both tokens that came along are dead there by introspection."
    )


def logout(scene: Scene) -> str:
    """Amina signs out here and at the provider."""
    expect(all(map(scene.is_alive, _revocable(scene))), "her tokens were dead before she left")
    page = scene.browser.submit(scene.browser.open(f"{scene.portal}/portal/"), {}, action="/oidc/logout/")
    expect(page.status == 200 and page.path == "/oidc/logged-out/", f"she came to {page.path} with {page.status}")
    after = scene.browser.open(f"{scene.portal}/portal/")
    expect(after.url.startswith(scene.provider), "her page still opens")
    expect("password" in after.text, "the provider still knows her session")
    return "One button: her session ended here first, then at the provider, which asks for the password again."


def tokens_dead(scene: Scene) -> str:
    """Both tokens are dead at the provider."""
    eventually(lambda: not any(map(scene.is_alive, _revocable(scene))), "a token is alive at the provider")
    return "The provider was asked about her access token and her refresh token: neither is active any more."


def claims_gone(scene: Scene) -> str:
    """What was kept for the session went with it."""
    expect(not StoredClaim.objects.filter(name="birthdate").exists(), "her date of birth is still held")
    return "Her date of birth was kept until she signed out. It went in the same transaction."


def scrubbed_by_worker(scene: Scene) -> str:
    """What was kept for some seconds goes by the worker."""
    eventually(lambda: not StoredClaim.objects.exists(), "a claim is held past its time")
    return f"Her address was kept for {RETENTION_SECONDS} s. The beat woke the worker, and the worker erased it."


def outage(scene: Scene) -> str:
    """Amina signs out while the provider revokes nothing; her page comes at once, and the worker goes on."""
    scene.browser = Browser()
    scene.sign_in_amina()
    scene.order(hostile_provider.OUTAGE)
    started = time.monotonic()
    page = scene.browser.submit(scene.browser.open(f"{scene.portal}/portal/"), {}, action="/oidc/logout/")
    took = time.monotonic() - started
    expect(page.path == "/oidc/logged-out/", f"she came to {page.path} with {page.status}")
    expect(all(map(scene.is_alive, _revocable(scene))), "the provider revoked, though it was out of order")
    expect(scene.browser.open(f"{scene.portal}/portal/").url.startswith(scene.provider), "her page still opens")
    scene.order(hostile_provider.MENDED)
    # On a slow machine the worker may have tried in vain more than once, and waits for longer each time.
    eventually(lambda: not any(map(scene.is_alive, _revocable(scene))), "a token is alive at the provider", seconds=120)
    return (
        "She signed in once more, and out while the provider answered 503 to every revocation: after "
        f"{took:.1f} s she was signed out here. Then it was mended, and the worker, which had waited, revoked both."
    )


def trail_refuses_change(scene: Scene) -> str:
    """UPDATE and DELETE of the trail, by SQL, are refused by the database itself."""
    table = AuditEvent._meta.db_table
    before = list(AuditEvent.objects.order_by("pk").values_list())
    for statement in (f"UPDATE {table} SET outcome = 'success'", f"DELETE FROM {table}"):
        try:
            with connections[AUDIT_ALIAS].cursor() as cursor:
                cursor.execute(statement)
        except DatabaseError:
            continue
        raise NotHeld(f"the database took {statement.partition(' ')[0]}")
    expect(list(AuditEvent.objects.order_by("pk").values_list())[: len(before)] == before, "events are changed")
    return f"UPDATE and DELETE by plain SQL: refused by triggers. All {len(before)} events stand as they were written."


def sealed_and_proven(scene: Scene) -> str:
    """The worker has sealed the trail; the command verifies it; one event is proven without the portal."""
    eventually(lambda: not AuditUnsealed.objects.exists(), "events are not sealed")
    told = scene.manage("phi_oidc", "audit", "verify")
    expect(told.returncode == 0, f"verify found something: {told.stdout[-500:]}")
    event = AuditEvent.objects.filter(action="login.succeeded").earliest("pk")
    proof = scene.var / "proof.json"
    proof.write_text(scene.manage("phi_oidc", "audit", "prove", str(event.pk)).stdout)
    key = scene.manage("phi_oidc", "audit", "checkpoint", "--public-key").stdout.strip()
    checked = scene.python("-m", "django_phi_oidc.audit.log.bundle", str(proof), "--public-key", key)
    expect(checked.returncode == 0 and str(event.pk) in checked.stdout, f"the proof does not hold: {checked.stderr}")
    forged = proof.with_name("forged.json")
    forged.write_text(proof.read_text().replace('"success"', '"failure"'))
    refused = scene.python("-m", "django_phi_oidc.audit.log.bundle", str(forged), "--public-key", key)
    expect(refused.returncode == 1, "a forged proof holds")
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    return (
        f"The worker sealed {size} events and signed the root over them. Verified: every one is as it was. Her sign-in "
        "was proven from a file, by the log’s public key alone; with one word of it changed the proof does not hold."
    )


def tampering_found(scene: Scene) -> str:
    """In a copy of the trail somebody with all rights changes one event, and is found."""
    copy = scene.var / "tampered.sqlite3"
    trail = connections[AUDIT_ALIAS].settings_dict["NAME"]
    with closing(sqlite3.connect(trail)) as original, closing(sqlite3.connect(copy)) as copied:
        original.backup(copied)
        for (name,) in copied.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            copied.execute(f"DROP TRIGGER {name}")
        victim = copied.execute("SELECT event_id FROM django_phi_oidc_auditleaf WHERE leaf_index = 2").fetchone()[0]
        copied.execute("UPDATE django_phi_oidc_auditevent SET actor = 'nobody' WHERE id = ?", [victim])
        copied.commit()
    told = scene.manage("phi_oidc", "audit", "verify", "--json", PHI_AUDIT_DATABASE_URL=f"sqlite:///{copy}")
    found = [json.loads(line) for line in told.stdout.splitlines()]
    named = [(each["kind"], each["event_id"]) for each in found if each.get("kind")]
    expect(told.returncode == 1, "the change was not found")
    expect(named == [("event_altered", str(uuid.UUID(victim)))], f"found was {named}")
    return f"In a copy, without its triggers, one word of one event was changed. Found, and named: event {named[0][1]}."


def _revocable(scene: Scene) -> list[str]:
    """Return her access and refresh token."""
    return [scene.tokens[name] for name in ("access token", "refresh token")]


STEPS = (
    Step(
        title="Amina signs in",
        tell=sign_in,
        events=("subject.linked success", "claim.stored success", "login.succeeded success"),
    ),
    Step(title="What the portal keeps of her is sealed", tell=sealed_at_rest),
    Step(
        title="She chooses a purpose and sees her details",
        tell=reveal_for_a_purpose,
        events=("claim.revealed success PATRQT",),
    ),
    Step(
        title="Her chart wants a stronger sign-in",
        tell=step_up,
        events=(
            "access.denied failure acr_insufficient PATRQT",
            "session.renewed success",
            "access.granted success PATRQT",
        ),
    ),
    Step(
        title="A clinician breaks the glass",
        tell=emergency_scene.broken,
        events=(
            "access.denied failure permission_missing TREAT",
            "emergency.opened success ETREAT",
            "access.granted success ETREAT",
            "emergency.closed success closed",
        ),
    ),
    Step(
        title="The privacy officer reviews it",
        tell=emergency_scene.reviewed,
        events=("emergency.reviewed success",),
    ),
    Step(title="Her way back, opened a second time", tell=replay, events=("login.refused failure state_replayed",)),
    Step(
        title="A way back begun in one browser, opened in another",
        tell=other_browser,
        events=("login.refused failure state_unknown",),
    ),
    Step(
        title="The provider lies: a forged token",
        tell=forged_token,
        events=("login.refused failure signature_invalid", "token.revoked success"),
    ),
    Step(
        title="Amina signs out",
        tell=logout,
        events=("session.ended success logout", "claim.scrubbed success", "logout.completed success"),
    ),
    Step(title="Her tokens are dead at the provider", tell=tokens_dead),
    Step(title="What was kept for the session is gone", tell=claims_gone),
    Step(title="The rest goes when its time is over", tell=scrubbed_by_worker, events=("claim.scrubbed success",)),
    Step(
        title="The provider is out of order when she signs out",
        tell=outage,
        events=("token.revocation_failed failure http_503", "session.ended success logout", "token.revoked success"),
    ),
    Step(title="The trail can’t be rewritten", tell=trail_refuses_change),
    Step(
        title="The trail is sealed, verified, and one event proven",
        tell=sealed_and_proven,
        events=("audit.verified success", "audit.exported success"),
    ),
    Step(title="Somebody with all rights changes an event", tell=tampering_found),
)
