"""The CPU backend: the same program, handed to C as an array of ops, one call a step."""
