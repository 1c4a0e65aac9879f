"""What runs a model. Methods know only `backends.base.Model`; each backend is a file of its own."""
