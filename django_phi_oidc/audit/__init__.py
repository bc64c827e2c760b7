"""The audit log: who did what, for which purpose, with which outcome. `events.Action` lists all actions."""
