"""One suite that every store engine passes."""
