"""Invite and link people from a CSV file: the rows are checked and shown before anything is
written.
"""
