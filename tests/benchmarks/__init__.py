"""Timings as ratios in one run, beside the peers: ``make bench``."""
