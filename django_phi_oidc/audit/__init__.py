"""The audit log: who did what, for which purpose, with which outcome. `actions.Action` lists all
actions.
"""
