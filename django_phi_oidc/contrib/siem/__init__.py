"""Deliver the sealed audit log to a SIEM, an audit repository or a file: at least once and in
order.
"""
