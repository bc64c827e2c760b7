"""Rows of the large lists, made by the database: accounts, subjects, sessions, revocations, claims and codes."""

from datetime import timedelta

from django.db import connection

SPAN = timedelta(days=30)
"""The rows cover this time until now."""
UNUSED_PROVIDER, UNUSED_CLAIM = "unused", "gender"
"""They are declared, and no row has them."""
_TIME = f"now() - interval '{SPAN.days} days' * (1 - number / {{count}}.0)"
_MILLIS = f"(extract(epoch FROM {_TIME}) * 1000)::bigint"
_UUID7 = f"(lpad(to_hex({_MILLIS}), 12, '0') || '70008000' || lpad(to_hex(number), 12, '0'))::uuid"
_STATEMENTS = (
    """
    INSERT INTO auth_user (username, first_name, last_name, email, password, is_staff, is_active, is_superuser,
        date_joined)
    SELECT 'person-' || number, 'Amina', 'Person ' || number, '', '', false, true, false, now()
    FROM generate_series(1, {people}) AS number
    """,
    """
    INSERT INTO django_phi_oidc_pairwisesubject
        (uuid, user_id, issuer, first_seen_at, last_seen_at, retention_key_id)
    SELECT gen_random_uuid(), {first_person} + number % {people}, 'https://op.example.test', {time}, {time},
        gen_random_uuid()
    FROM generate_series(1::bigint, {count}) AS number
    """,
    # The newest half is live, and one in a thousand of the others. Ended sessions have no tokens.
    """
    INSERT INTO django_phi_oidc_oidcsession
        (id, user_id, provider, issuer, sid_digest, session_key_digest, acr, started_at, last_seen_at, ended_at,
        end_reason, session_key, access_token, refresh_token, id_token_claims, browser, platform, network)
    SELECT gen_random_uuid(), {first_person} + number % {people}, 'default', 'https://op.example.test', '',
        md5(number::text) || md5(number::text), '', started, started + interval '20 minutes',
        CASE WHEN is_live THEN NULL ELSE started + interval '30 minutes' END,
        CASE WHEN is_live THEN '' WHEN number % 3 = 0 THEN 'logout' ELSE 'idle_timeout' END,
        repeat(token, 3), repeat(token, 20), repeat(token, 10), repeat(token, 8),
        'Firefox', 'Linux', '198.51.100.0/24'
    FROM (
        SELECT *, CASE WHEN is_live THEN md5(number::text) END AS token FROM (
            SELECT number, {time} AS started, number * 2 > {count} OR number % 1000 = 0 AS is_live
            FROM generate_series(1::bigint, {count}) AS number
        ) AS numbers
    ) AS sessions
    """,
    # As many as sessions; a hundredth is pending, also among the oldest.
    """
    INSERT INTO django_phi_oidc_pendingrevocation
        (id, provider, token_type_hint, status, attempts, due_at, last_fault, created_at, finished_at)
    SELECT {uuid7}, 'default', 'access_token', CASE WHEN number % 100 = 0 THEN 'pending' ELSE 'done' END, 1, {time}, '',
        {time}, CASE WHEN number % 100 = 0 THEN NULL ELSE {time} END
    FROM generate_series(1::bigint, {count}) AS number
    """,
    """
    INSERT INTO django_phi_oidc_storedclaim
        (subject_id, session, name, bucket, value, purpose, obtained_at, expires_at, owner, retained_until)
    SELECT {first_subject} + number % {count}, gen_random_uuid(), 'birthdate', '', repeat(md5(number::text), 8),
        'TREAT', {time}, {time} + interval '40 days', '1', {time} + interval '40 days'
    FROM generate_series(1::bigint, {count}) AS number
    """,
    """
    INSERT INTO phi_oidc_invitations_activationcode
        (user_id, provider, key_id, digest, created_at, created_by, expires_at, redeemed_at, privileges, binding)
    SELECT {first_person} + number % {people}, 'default', '0123abcd', md5(number::text) || md5(number::text), {time},
        '1', {time} + interval '7 days', CASE WHEN number > {people} / 2 THEN {time} END, '[]', ''
    FROM generate_series(1::bigint, {count}) AS number
    """,
    """
    INSERT INTO phi_oidc_individual_rights_accountingcopy
        (id, account, sha256, count, lines, first_given_at, last_given_at)
    SELECT {uuid7}, number::text, repeat('ab', 32), 1, repeat(md5(number::text), 8), {time}, {time}
    FROM generate_series(1::bigint, {count}) AS number
    """,
)


def create_rows(count: int) -> None:
    """Create count rows of each list for a hundredth as many accounts, all of which a search by name reads."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval(pg_get_serial_sequence('auth_user', 'id')) + 1")
        (first_person,) = cursor.fetchone()
        cursor.execute("SELECT nextval(pg_get_serial_sequence('django_phi_oidc_pairwisesubject', 'id')) + 1")
        (first_subject,) = cursor.fetchone()
        values = {"count": count, "people": count // 100, "first_person": first_person, "first_subject": first_subject}
        times = {"time": _TIME.format(**values), "uuid7": _UUID7.format(**values)}
        for statement in _STATEMENTS:
            cursor.execute(statement.format(**values, **times))
