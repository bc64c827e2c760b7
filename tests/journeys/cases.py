"""The attack kit's cases, as the project of the tests has them: it loosens nothing."""

from django_phi_oidc.attack.bending import NO, member
from django_phi_oidc.attack.cases import BY_KEY, KEY_CLIENT, R1, R2, R3, SIGNED_R7, Case, r5, r6, r7

__all__ = ["BENT", "BY_KEY", "CLIENT", "KEY_CLIENT", "NO", "R1", "R6", "R7", "Case", "member"]

CLIENT = "portal"
R6, R7 = r6(), r7()
BENT = [*R1, *R2, *R3, *r5(), *R6, *R7, *SIGNED_R7]
