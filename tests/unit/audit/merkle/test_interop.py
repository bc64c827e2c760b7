"""Roots, proofs and checkpoints compared with the package tamperlog and the openssl command."""

import subprocess
from pathlib import Path

import pytest
import tamperlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, sign_checkpoint
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.proof import (
    build_consistency_proof,
    build_inclusion_proof,
    compute_root_at_size,
    verify_consistency,
    verify_inclusion,
)
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from tests.support.external_tools import PARTS
from tests.unit.audit.merkle.example_trees import LEAVES, reader, some_examples

SIZES = (*range(1, 18), 31, 32, 33, 64, 65, 100)
HASHES = [hash_leaf(leaf) for leaf in LEAVES]


def test_root_of_every_size_equals_that_of_tamperlog() -> None:
    tree = CompactRange()
    for size in range(101):
        assert tree.compute_root() == compute_root_at_size(size, reader(size)) == tamperlog.merkle_root(HASHES[:size])
        tree.extend(HASHES[size : size + 1])


def test_inclusion_proof_is_verified_by_tamperlog() -> None:
    for size in SIZES:
        root = compute_root_at_size(size, reader(size))
        for index in range(size):
            proof = build_inclusion_proof(index, size, reader(size))
            tamperlog.verify_inclusion(index, size, HASHES[index], proof, root)
            with pytest.raises(tamperlog.ProofError):
                tamperlog.verify_inclusion(index, size, HASHES[index + 1], proof, root)


def test_consistency_proof_is_verified_by_tamperlog() -> None:
    for new in SIZES:
        new_root = compute_root_at_size(new, reader(new))
        for old in range(1, new + 1):
            proof = build_consistency_proof(old, new, reader(new))
            tamperlog.verify_consistency(old, compute_root_at_size(old, reader(old)), new, new_root, proof)
            with pytest.raises(tamperlog.ProofError):
                tamperlog.verify_consistency(old, compute_root_at_size(old - 1, reader(old)), new, new_root, proof)


@some_examples
@given(st.integers(min_value=1, max_value=len(LEAVES)), st.data())
def test_proofs_of_tamperlog_are_verified(size: int, data: st.DataObject) -> None:
    index, root = data.draw(st.integers(min_value=0, max_value=size - 1)), tamperlog.merkle_root(HASHES[:size])
    verify_inclusion(
        leaf_hash=HASHES[index],
        leaf_index=index,
        tree_size=size,
        proof=tamperlog.inclusion_proof(index, HASHES[:size]),
        root_hash=root,
    )
    verify_consistency(
        old_size=index,
        old_root=tamperlog.merkle_root(HASHES[:index]),
        new_size=size,
        new_root=root,
        proof=tamperlog.consistency_proof(index, HASHES[:size]),
    )


@pytest.mark.openssl
def test_sign_checkpoint_signature_is_verified_by_openssl(tmp_path: Path) -> None:
    program, key = PARTS["openssl"]().where, Ed25519PrivateKey.generate()
    note = sign_checkpoint(Checkpoint(origin="log.example", tree_size=100, root_hash=hash_leaf(b"root")), key)
    body, _, line = note.rpartition("\n\n")
    (tmp_path / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    # The signature is what `base64 -d | tail -c 64` leaves of the last word.
    encoded = line.split()[-1].encode()
    decoded = subprocess.run([program, "base64", "-d", "-A"], input=encoded, capture_output=True, check=True).stdout
    (tmp_path / "signature").write_bytes(decoded[-64:])

    def verify(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "body").write_text(text, newline="")
        command = f"{program} pkeyutl -verify -rawin -pubin -inkey key.pem -sigfile signature -in body"
        return subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)

    accepted = verify(f"{body}\n")
    assert (accepted.returncode, "Verified Successfully" in accepted.stdout) == (0, True), accepted
    for changed in (f"{body}\n".replace("100", "101"), body, f"{body}\n\n"):
        assert verify(changed).returncode != 0, changed
