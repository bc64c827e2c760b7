"""The database of a hospital: people, live and ended sessions, their claims and finished revocations.

One row of each table is written by the app; `generate_series` copies it. The ciphertexts of the copies cannot be
decrypted, because they are bound to the row that was copied.
"""

from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, models, transaction

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.sessions.kept_id_token import KeptIDToken

FIRST_PERSON = 1_000
"""The primary key before those of the copied people."""
ISSUER = "https://op.example.test"
STARTED_WITHIN = timedelta(hours=6)
"""The age of the oldest live session."""
ENDED_WITHIN = timedelta(days=100)
"""The age of the oldest end; a tenth of the ended sessions is older than their retention of 90 days."""
_ACCESS_TOKEN, _REFRESH_TOKEN = "a" * 900, "r" * 500
"""As long as the tokens of common providers."""


def fill(*, people: int, live: int, ended: int) -> None:
    """Write the rows into an empty database."""
    now = clock.now()
    person = create_person("template")
    session = sign_in(person, number=0, now=now)
    subject = session.subject
    assert subject is not None
    claim = _model("claims.models", "StoredClaim")(
        subject=subject, session=session.pk, name="birthdate", purpose="TREAT", obtained_at=now, owner=str(person.pk)
    )
    claim.value = '"1980-01-01"'
    claim.save()
    copies = f"{FIRST_PERSON} + mod(n - 1, {people:d}) + 1"
    names = {"username": "'person' || n", "first_name": "'Amina'", "last_name": "'Surname' || n"}
    _copy(person, people, id=f"{FIRST_PERSON} + n", **names)
    _copy(
        subject,
        people,
        id=f"{FIRST_PERSON} + n",
        uuid="gen_random_uuid()",
        user_id=f"{FIRST_PERSON} + n",
        retention_key_id="gen_random_uuid()",
    )
    _copy_live_sessions(session, live, copies, now)
    started = _spread(now, STARTED_WITHIN, live)
    _copy(claim, live, id=f"{FIRST_PERSON} + n", subject_id=copies, session=_uuid7(started), owner=f"({copies})::text")
    _copy_ended_sessions(session, ended, copies, now)


def create_person(name: str) -> Any:
    """Create a user who is linked to that `sub`."""
    bulk_links = import_module("django_phi_oidc.contrib.subject_links.bulk_links")
    keyring = import_module("django_phi_oidc.crypto.keyring")
    conf = import_module("django_phi_oidc.conf")
    person = get_user_model()._default_manager.create_user(username=name)
    bulk_links.link_existing_users(
        {name: person},
        provider=conf.providers()["default"],
        keys=keyring.get_keys("subject"),
        origin=Origin(),
        now=clock.now(),
    )
    return person


def sign_in(person: Any, *, number: int, now: datetime, provider: str = "default") -> Any:
    """Create a Django session and an OIDC session, as a sign-in does, and return the latter. number: for its sid."""
    lifecycle = import_module("django_phi_oidc.sessions.lifecycle")
    with transaction.atomic():
        django_session = SessionStore()
        django_session.update({"_auth_user_id": str(person.pk), "padding": "x" * 200})
        django_session.create()
        return lifecycle.start_session(
            session_id=randomness.uuid7(now),
            user=person,
            subject=person.pairwise_subjects.get(),
            provider=provider,
            issuer=ISSUER,
            sid=f"sid {number}",
            tokens=TokenResponse(
                access_token=_ACCESS_TOKEN,
                id_token="",
                refresh_token=_REFRESH_TOKEN,
                expires_in=timedelta(minutes=5),
                lifetime_alert=False,
            ),
            id_token=KeptIDToken(claims={"iss": ISSUER, "sub": person.username, "aud": "portal", "sid": str(number)}),
            django_session_key=django_session.session_key,
            auth_time=now,
            acr="",
            now=now,
        )


def _copy_live_sessions(session: Any, count: int, person: str, now: datetime) -> None:
    started = _spread(now, STARTED_WITHIN, count)
    django_session = _model("sessions", "Session", package="django.contrib").objects.get()
    _copy(django_session, count, session_key="md5(n::text)")
    _copy(
        session,
        count,
        id=_uuid7(started),
        user_id=person,
        subject_id=person,
        session_key_digest="encode(sha256(md5(n::text)::bytea), 'hex')",
        sid_digest="encode(sha256(n::text::bytea), 'hex')",
        started_at=started,
        last_seen_at=f"LEAST({started} + random() * interval '10 minutes', '{now.isoformat()}')",
        due_at=f"{started} + interval '24 hours'",
    )


def _copy_ended_sessions(session: Any, count: int, person: str, now: datetime) -> None:
    ended = _spread(now, ENDED_WITHIN, count)
    started = f"({ended} - interval '20 minutes')"
    _copy(
        session,
        count,
        id=_uuid7(started),
        user_id=person,
        subject_id=person,
        session_key_digest="encode(sha256(('ended' || n)::bytea), 'hex')",
        sid_digest="encode(sha256(('ended' || n)::bytea), 'hex')",
        started_at=started,
        last_seen_at=ended,
        ended_at=ended,
        end_reason="'logout'",
        **dict.fromkeys(import_module("django_phi_oidc.sessions.models").ENCRYPTED_COLUMNS, "NULL"),
    )
    revocation = _model("sessions.models", "PendingRevocation").objects.create(
        id=randomness.uuid7(now),
        provider=session.provider,
        session=session.pk,
        token_type_hint="access_token",
        status="done",
        attempts=1,
        due_at=now,
        created_at=now,
        first_attempt_at=now,
        finished_at=now,
    )
    times = dict.fromkeys(("due_at", "created_at", "first_attempt_at", "finished_at"), ended)
    _copy(revocation, count, id=_uuid7(ended), token_digest="encode(sha256(n::text::bytea), 'hex')", **times)


def _copy(row: models.Model, count: int, **expressions: str) -> None:
    """Insert copies of a stored row by one statement. expressions: SQL over n, instead of the values of the row."""
    meta = row._meta
    columns = [field.column for field in meta.concrete_fields]
    assert set(expressions) <= set(columns)
    values = ", ".join(expressions.get(column, f'template."{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    assert meta.pk is not None
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {meta.db_table} ({names}) SELECT {values} FROM {meta.db_table} AS template,"
            f' generate_series(1, {count:d}) AS n WHERE template."{meta.pk.column}" = %s',
            [row.pk],
        )


def _spread(now: datetime, span: timedelta, count: int) -> str:
    """Return the SQL of times that are spread over the span before now."""
    seconds = span.total_seconds() / max(count, 1)
    return f"('{now.isoformat()}'::timestamptz - n * interval '{seconds:.9f} seconds')"


def _uuid7(time: str) -> str:
    """Return the SQL of an id that begins with that time. Spec: RFC 9562 5.7."""
    millis = f"lpad(to_hex((extract(epoch FROM {time}) * 1000)::bigint), 12, '0')"
    return f"({millis} || '70008000' || lpad(to_hex(n), 12, '0'))::uuid"


def _model(module: str, name: str, *, package: str = "django_phi_oidc") -> Any:
    """Return a model, which cannot be imported before django.setup()."""
    return getattr(import_module(f"{package}.{module}" + (".models" if package != "django_phi_oidc" else "")), name)
