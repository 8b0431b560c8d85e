"""The version of the whole product; both distributions read it from here."""

__version__ = "0.1.0"
