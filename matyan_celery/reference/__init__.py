"""The reference pages of ``docs/reference``, written from the code, and checked against it by a test."""
