"""One person on one page of the admin: who they are here, what is held of them, and what officers may do about it."""
