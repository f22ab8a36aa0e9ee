"""Why no sentinel names a master: each reason once. Sentinels themselves: tests/integration/test_sentinels.py."""

from __future__ import annotations

import json

import msgpack
from celery.app.utils import filter_hidden_settings

from tasks.app import make_app
from tasks.sentinels import show_reasons
from tasks.settings import load_settings


def test_each_reason_is_told_once() -> None:
    reasons = {"a:1": "refused.", "b:2": "it takes the master for down", "c:3": "refused."}
    assert show_reasons("m", reasons) == (
        "no sentinel names the master 'm' (a:1, c:3: refused; b:2: it takes the master for down)"
    )


def test_celery_s_settings_can_be_shown_and_hold_no_password() -> None:
    """Flower asks each worker for them."""
    given = {"redis_url": "sentinels://u:hunter2@a,b/0", "redis_sentinel_master": "m"}
    with make_app(load_settings(None, redis_sentinel_password="hunter3", **given)) as app:
        shown = filter_hidden_settings(app.conf.table(with_defaults=False))
    options = {"broker_transport_options": shown["broker_transport_options"], "broker_use_ssl": shown["broker_use_ssl"]}
    assert msgpack.unpackb(msgpack.packb(options)) == json.loads(json.dumps(options))
    assert "hunter" not in str(shown)
