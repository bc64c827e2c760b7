"""Write the folder `secrets` of a deployment: keys, passwords and certificates. `python make_secrets.py` as root.

Docker Compose and Kubernetes use the same files. Compose mounts them with their owners, so each file belongs to the
account in the container that reads it; without root, only Kubernetes can use them.
"""

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key

HERE = Path(__file__).resolve().parent
PORTAL_UID, POSTGRESQL_UID, REDIS_UID = 10001, 999, 999
"""The accounts in the images: of the Dockerfile, of `postgres` and of `redis`."""
MOUNTED = {
    "audit-signing-key.pem": PORTAL_UID,
    "ca.crt": PORTAL_UID,
    "postgresql.crt": POSTGRESQL_UID,
    "postgresql.key": POSTGRESQL_UID,
    "redis.conf": REDIS_UID,
    "redis.crt": REDIS_UID,
    "redis.key": REDIS_UID,
}
"""The files that a container reads, and as which account. Compose reads the others itself."""
ROLES = ("portal", "portal_audit", "portal_worker", "portal_sealer")
LIFETIME = timedelta(days=730)
REDIS_CONFIGURATION = """\
port 0
tls-port 6379
tls-cert-file /run/secrets/redis.crt
tls-key-file /run/secrets/redis.key
tls-auth-clients no
requirepass {password}
save ""
appendonly no
dir /tmp
maxmemory 100mb
maxmemory-policy noeviction
"""


def main() -> None:
    """Write the folder next to this file, or at the path in the arguments. It must not exist."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "secrets"
    lines = (HERE / "configuration.env").read_text().splitlines()
    configuration = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    folder.mkdir(mode=0o700, parents=True)
    for name, text in build_files(origin=configuration["PHI_AUDIT_ORIGIN"]).items():
        path = folder / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        if os.geteuid() == 0 and name in MOUNTED:
            os.chown(path, MOUNTED[name], MOUNTED[name])
    print(f"{folder}: set OIDC_CLIENT_SECRET in portal.env, and keep a copy of the folder in a safe place.")


def build_files(*, origin: str) -> dict[str, str]:
    """Return the content of each file."""
    signing_key = ed25519.Ed25519PrivateKey.generate()
    passwords = {role: create_token() for role in (*ROLES, "owner", "redis")}
    authority_key, authority = create_authority()
    certificates = {name: create_certificate(name, authority_key, authority) for name in ("postgresql", "redis")}
    owner_url = build_database_url("owner", passwords)
    return {
        "portal.env": format_variables(
            {
                "DJANGO_SECRET_KEY": create_token() + create_token(),
                "OIDC_CLIENT_SECRET": "",
                "PHI_ENCRYPTION_KEYS": create_key(),
                "PHI_SUBJECT_KEYS": create_key(),
                "PHI_AUDIT_MAC_KEYS": create_key(),
                "PHI_AUDIT_PUBLIC_KEYS": encode_verifier_key(origin, signing_key.public_key()),
                "DATABASE_URL": build_database_url("portal", passwords),
                "PHI_AUDIT_DATABASE_URL": build_database_url("portal_audit", passwords),
            }
        ),
        "worker.env": format_variables({"PHI_AUDIT_DATABASE_URL": build_database_url("portal_worker", passwords)}),
        "sealer.env": format_variables({"PHI_AUDIT_DATABASE_URL": build_database_url("portal_sealer", passwords)}),
        "broker.env": format_variables(
            {
                "CELERY_BROKER_URL": f"rediss://:{passwords['redis']}@redis:6379/0"
                "?ssl_cert_reqs=required&ssl_ca_certs=/run/secrets/ca.crt"
            }
        ),
        "migration.env": format_variables(
            {
                "DATABASE_URL": owner_url,
                "PHI_AUDIT_DATABASE_URL": owner_url,
                "DATABASE_ROLES_JSON": json.dumps({role: passwords[role] for role in ROLES}, separators=(",", ":")),
            }
        ),
        "postgresql.env": format_variables({"POSTGRES_PASSWORD": passwords["owner"]}),
        "redis.conf": REDIS_CONFIGURATION.format(password=passwords["redis"]),
        "audit-signing-key.pem": format_private_key(signing_key),
        "ca.crt": authority.public_bytes(Encoding.PEM).decode(),
        **{f"{name}.crt": certificate for name, (certificate, _) in certificates.items()},
        **{f"{name}.key": key for name, (_, key) in certificates.items()},
    }


def create_token() -> str:
    """Return 256 random bits without characters that a URL escapes."""
    return secrets.token_urlsafe(32)


def create_key() -> str:
    """Return a key as `phi_oidc keys generate` does."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def build_database_url(role: str, passwords: Mapping[str, str]) -> str:
    """Return the URL of the database for a role."""
    options = "sslmode=verify-full&sslrootcert=/run/secrets/ca.crt&connect_timeout=2"
    return f"postgresql://{role}:{passwords[role]}@postgresql:5432/portal?{options}"


def format_variables(variables: Mapping[str, str]) -> str:
    """Return a file of variables without quotes, as Compose and kubectl read it."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def format_private_key(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """Return the key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def create_authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a certificate authority. Its key is not written: a renewal makes a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "portal deployment")])
    usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False)
    usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
    builder = (
        start_certificate(name, name, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    )
    return key, builder.sign(key, hashes.SHA256())


def create_certificate(
    host: str, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> tuple[str, str]:
    """Return certificate and key of a server as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    builder = start_certificate(name, authority.subject, key.public_key(), authority_key.public_key())
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName("localhost")]), critical=False
    )
    certificate = builder.sign(authority_key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM).decode(), format_private_key(key)


def start_certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    """Return a builder with names, keys, serial number and validity. From Python 3.13 on, the key ids are required."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


if __name__ == "__main__":
    main()
