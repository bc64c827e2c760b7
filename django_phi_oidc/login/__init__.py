"""Sign-in: from the first redirect to a session, or to a refusal that leaves no token alive."""
