"""A posterior in one file."""
