"""SCIM 2.0: clients of a provider create, disable and group the accounts of its persons. Spec: RFC
7643, RFC 7644.

Only what `routes` imports leads to scim2-models: a process of a portal without the option `scim`
never imports it.
"""
