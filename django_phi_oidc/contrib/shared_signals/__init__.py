"""Security events of a provider: they end sessions, or demand a new sign-in. Spec: SSF 1.0, CAEP
1.0, RISC 1.0.
"""
