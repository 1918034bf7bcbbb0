"""The application above all: command line, workflow, report, demo."""
