"""Whether anybody joins our group whom we do not fence. Kafka itself refuses them only in its classic protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.desk import Desk
from bridge.fresh import KafkaAway

if TYPE_CHECKING:
    from bridge.lookup import Lookup
    from bridge.membership import Membership


class GroupWatch:
    """Looks from time to time who is in the group, where Kafka's new protocol would let anybody in.

    Args:
        lookup: asks Kafka.
        membership: how we are in the group.
        every: seconds between two looks.
    """

    def __init__(self, lookup: Lookup, membership: Membership, *, every: float) -> None:
        self._lookup = lookup
        self._membership = membership
        self._every = every
        self._desk = Desk("group")
        self._looking = False
        self._looked_at = 0.0
        self.found: str | None = None
        """A sentence about the strangers that were found."""

    def look(self, now: float) -> None:
        """Look, if there is reason to and it is time to."""
        self._desk.answer()
        if not self._membership.is_new or self._looking or now - self._looked_at < self._every:
            return
        self._looking, self._looked_at = True, now

        def then(members: list[str]) -> None:
            self._looking = False
            self.found = self._membership.find_foreign(members)

        def failed(error: Exception) -> None:
            self._looking = False
            if not isinstance(error, KafkaAway):  # the loop says that Kafka is away
                raise error

        self._desk.ask(self._lookup.members, then, failed)

    def close(self) -> None:
        """End the thread. Closing twice is fine."""
        self._desk.close()
