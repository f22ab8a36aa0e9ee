"""The command line: `matyan-celery`."""
