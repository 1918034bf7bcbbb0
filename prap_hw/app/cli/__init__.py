"""The command line ``prap``: thin verbs over :mod:`prap_hw.app.workflow`.

:mod:`~prap_hw.app.cli.program` is the program and lists its verbs, each of which is a function in
``verbs/``. Options that several verbs share are declared once, in
:mod:`~prap_hw.app.cli.options` and, where some belong together, :mod:`~prap_hw.app.cli.groups`.
"""
