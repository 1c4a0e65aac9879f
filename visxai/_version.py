"""The version, in its one place: the wheel and `visxai --version` read it from here."""

__version__ = "0.1.0"
