"""The privacy officer's desk: how things stand, on the first page of the admin."""
