"""The targets, one a file; see the package fuzz."""
