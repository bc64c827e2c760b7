"""A SoftHSM token with an Ed25519 key, in a folder of the test."""

import os
import subprocess
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from tests.support.external_tools import SOFTHSM_MODULE

PIN = "1234"
_ED25519 = "1.3.101.112"


def create_token(folder: Path, *, label: str = "portal", key_label: str = "audit-log") -> str:
    """Create the token and the key, and return its PKCS#11 URI. Changes SOFTHSM2_CONF of this process."""
    (folder / "tokens").mkdir(parents=True)
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    library = pkcs11.lib(SOFTHSM_MODULE)
    library.reinitialize()
    with library.get_token(token_label=label).open(rw=True, user_pin=PIN) as session:
        parameters = {Attribute.EC_PARAMS: encode_named_curve_parameters(_ED25519)}
        domain = session.create_domain_parameters(KeyType.EC_EDWARDS, parameters, local=True)
        options = {"store": True, "label": key_label, "id": b"\x01"}
        domain.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **options)
    (folder / "pin").write_text(f"{PIN}\n")
    return f"pkcs11:token={label};object={key_label}?module-path={SOFTHSM_MODULE}&pin-source=file:{folder / 'pin'}"
