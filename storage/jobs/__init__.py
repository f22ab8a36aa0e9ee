"""What beat does from time to time, on an open store: each job with a dry run, in pages and bounded transactions."""
