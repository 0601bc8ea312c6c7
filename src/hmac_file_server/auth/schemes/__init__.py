"""One module a scheme."""
