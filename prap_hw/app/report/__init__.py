"""The report of a network, or of a run of it: one self-contained HTML page.

:mod:`~prap_hw.app.report.page` fills the page, :mod:`~prap_hw.app.report.network` gathers what is
known of a folder that `prap compress` wrote, :mod:`~prap_hw.app.report.content` counts,
:mod:`~prap_hw.app.report.pictures` and :mod:`~prap_hw.app.report.charts` draw.
"""
