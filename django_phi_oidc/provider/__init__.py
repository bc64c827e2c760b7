"""The declared providers: HTTP transport, metadata and keys."""
