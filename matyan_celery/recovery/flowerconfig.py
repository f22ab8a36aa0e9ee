"""Flower's configuration file that adds the page ``/recovery``: ``celery -A tasks flower --conf=THIS_FILE``.

``matyan-celery flower`` does the same without it. In a configuration file of your own, write these two lines.
"""

from matyan_celery.recovery.install import install

install()
