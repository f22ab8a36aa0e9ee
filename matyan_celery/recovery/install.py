"""Putting the page into Flower, by what Flower leaves open: its list of handlers and Tornado's template loader."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import flower.urls
import tornado.template
from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView
from tornado.web import StaticFileHandler, url

from matyan_celery.recovery.broker import OurBrokerView, OurQueueLengths
from matyan_celery.recovery.capture import listen_patiently
from matyan_celery.recovery.desk import Desk
from matyan_celery.recovery.handlers import CleanupHandler, LetterHandler, RecoveryHandler, RequeueHandler
from tasks.settings import WrongSettingError, load_settings

if TYPE_CHECKING:
    from tasks.settings import Settings

_HERE: Final = Path(__file__).parent
_NAVBAR: Final = "navbar.html"
_LINK: Final = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'recovery' %} active{% end %}"
            href="{{ reverse_url('recovery') }}"
            {% if active_tab == 'recovery' %}aria-current="page"{% end %}>Recovery</a>
        </li>
      """


class _Loader(tornado.template.Loader):
    """Flower's templates and ours; Flower's bar of links gets one more."""

    def _create_template(self, name: str) -> tornado.template.Template:
        ours = _HERE / "templates" / name
        path = ours if ours.is_file() else Path(self.root) / name
        source = path.read_text(encoding="utf-8")
        if name == _NAVBAR:
            source = source.replace("</ul>", f"{_LINK}</ul>", 1)
        return tornado.template.Template(source, name=name, loader=self)


def install(settings: Settings | None = None) -> Desk:
    """Add the page to the Flower that this process is about to start. Twice is fine.

    Args:
        settings: read from the environment if not given; wrong ones end the process with a sentence.

    Returns:
        What asks store and Redis for the page.
    """
    handlers: list[Any] = flower.urls.handlers
    for handler in handlers:
        if getattr(handler, "name", None) == "recovery":
            there: Desk = handler.kwargs["desk"]
            return there
    try:
        desk = Desk(settings or load_settings())
    except WrongSettingError as error:
        sys.exit(str(error))
    listen_patiently()
    given = {"desk": desk}
    handlers[:0] = [  # before Flower's last one, which takes every address
        url(r"/recovery", RecoveryHandler, given, name="recovery"),
        url(r"/recovery/requeue", RequeueHandler, given, name="recovery_requeue"),
        url(r"/recovery/cleanup", CleanupHandler, given, name="recovery_cleanup"),
        url(r"/recovery/letter", LetterHandler, given, name="recovery_letter"),
        url(r"/recovery/static/(.*)", StaticFileHandler, {"path": str(_HERE / "static")}, name="recovery_static"),
    ]
    _replace(BrokerView, url(r"/broker", OurBrokerView, given, name="broker"))
    _replace(GetQueueLengths, url(r"/api/queues/length", OurQueueLengths, given))
    flower.urls.settings["template_loader"] = _Loader(flower.urls.settings["template_path"])
    return desk


def _replace(handler: type[Any], ours: Any) -> None:
    """Put a handler of ours where Flower's stands: two of one name are not allowed."""
    handlers: list[Any] = flower.urls.handlers
    for place, entry in enumerate(handlers):
        if (entry[1] if isinstance(entry, tuple) else entry.handler_class) is handler:
            handlers[place] = ours
            return
    msg = f"Flower has no {handler.__name__} any more: its queues are looked at by its own client"
    raise LookupError(msg)
