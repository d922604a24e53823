"""Tests: file mirrors file, a test's name is its claim."""
