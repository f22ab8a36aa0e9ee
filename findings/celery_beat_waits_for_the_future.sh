#!/bin/sh
# Celery's beat, whose schedule file was written while the clock was wrong, sends nothing until that time has come.
#
# One might expect that a run noted ten years ahead counts as run just now, or as due. Beat believes it: its job that
# runs each minute is next due in ten years, without a word in the log, over any number of restarts.
# Exits with 1 where Celery does otherwise.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "celery==5.7.0"
cd "$folder"
cat > look.py <<'PYTHON'
import sys
from datetime import timedelta

import celery
from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab

app = Celery(broker="memory://")
app.conf.beat_schedule = {"each minute": {"task": "job", "schedule": crontab()}}


def begin():
    return PersistentScheduler(app=app, schedule_filename="schedule")


first = begin()
first.schedule["each minute"].last_run_at += timedelta(days=3650)  # as a wrong clock would have written it
first.close()
again = begin()
due, seconds = again.schedule["each minute"].is_due()
again.close()
print(f"Celery {celery.__version__}: due now: {due}, next in {seconds / 86400:.0f} days")
sys.exit(0 if not due and seconds > 3000 * 86400 else 1)
PYTHON
"$folder/venv/bin/python" look.py
