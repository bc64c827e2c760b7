"""Alerts for operators: anomalies in the audit log, and changes of a provider's metadata or
keys.
"""
