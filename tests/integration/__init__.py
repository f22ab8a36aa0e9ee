"""The product and its surroundings as real processes."""
