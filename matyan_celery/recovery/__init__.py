"""The page ``/recovery`` inside Flower: what waits for a person, with *Requeue* beside it.

That is failed and held cleanups, dead letters and stalled lanes.

* `install` puts the page into Flower, its templates and links; ``flowerconfig.py`` does so for Celery's own command.
* `query` is what a person asked to see, as it stands in the address.
* `desk` is store and Redis, as blocking calls for an executor.
* `rows` is what the templates show of a cleanup, a letter, a lane.
* `handlers` decides on authentication, forged forms and answers; it never calls the store in Flower's loop.
"""
