"""Access control: policies and purposes, roles, stronger sign-ins and emergency access."""
