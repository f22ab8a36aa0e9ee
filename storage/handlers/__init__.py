"""What the rarer message types mean, one noun a module. Sequences, the hot path, are in `storage.sequences`."""
