"""Column and table names, each said once."""

USER = "user_id"
ITEM = "item_id"
TIME = "timestamp"  # int64, milliseconds since 1970-01-01 UTC
LABEL = "label"  # int8, 1 = positive, 0 = shown and not taken, NULL = neither (data.negative)
IMPRESSION = "impression_id"  # what was shown together; optional
PART = "part"  # 'train' or 'test', where the log comes with its split
AVAILABLE_FROM = "available_from"  # int64, milliseconds; optional, items only
AVAILABLE_UNTIL = "available_until"  # int64, milliseconds, not included; optional, items only
CREATED = "created_at"  # int64, milliseconds; optional, items only
REASON = "reason"  # why a row was quarantined
# Columns that queries add to those of a log have names of their own: no log may use this prefix.
INTERNAL = "_dssm_"
ROW = f"{INTERNAL}row"  # a row's number in its file: time order, file order for ties

HISTORY = f"{INTERNAL}history"  # the items that a user had before the log, oldest first

INTERACTIONS = "interactions"
USERS = "users"
ITEMS = "items"
HISTORIES = "histories"  # user_id, timestamp, HISTORY: one row a user

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
