"""SCIM 2.0: clients of a provider create, disable and group the accounts of its persons. Spec: RFC
7643, RFC 7644.

Only `scim_requests` leads to scim2-models, and the view imports it at the first request.
"""
