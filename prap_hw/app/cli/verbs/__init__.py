"""The verbs of ``prap``, a module to those that change together."""
