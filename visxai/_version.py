"""The version of visxai, kept here alone: the wheel and `visxai --version` read it."""

__version__ = "0.1.0"
