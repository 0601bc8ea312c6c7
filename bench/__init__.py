"""Measures the server side by side with nginx and others, in one run, and reports ratios of medians."""
