"""Who a person is here: known by (issuer, `sub`) alone, never by e-mail or name."""
