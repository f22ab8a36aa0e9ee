"""One module per command (or group of commands) of `matyan-celery`."""
