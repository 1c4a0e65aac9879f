"""Explanations as other libraries' objects, and the other way round; each where it is installed."""
