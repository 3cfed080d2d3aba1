"""What the words in names of columns and files mean."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER = _words(
    "user uid visitor customer member client account viewer reader buyer profile person shopper"
    " consumer subscriber cookie userid visitorid customerid"
)
HISTORY = _words("history hist histories previous prior past")
SESSION = _words("session sessionid device deviceid")
ITEM = _words(
    "item iid article product movie video track song news ad aid book sku offer content post place"
    " poi venue hotel restaurant recipe game app document doc page listing property asin business"
    " show anime artist location course job itemid productid movieid articleid newsid"
)
TIME = _words("timestamp time ts date datetime when at unix epoch created clicked viewed day")
CREATED = _words("created creation published publish release released")
RATING = _words("rating ratings score stars star grade")
LABEL = _words("label click clicked target like liked purchase purchased buy conversion y")
EVENT = _words("event action behavior behaviour activity interaction")
# Columns that describe a user or an item, and are not its id
ABOUT = _words(
    "category categories type group class name title price count size url brand section genre"
    " genres age gender city country state level length number feature features affinity"
)
NO_FEATURE = _words("id session url link image index row unnamed")


def words_of(name: str) -> list[str]:
    """The words of a name in lower case; a type after a colon (RecBole's) is left out."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name.partition(":")[0])
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
