"""Real servers as plain processes on this machine, for the demo and the tests."""
