"""Column names of event logs by role, with presets for event trackers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import pyarrow as pa

from debias.data.nested import resolved
from debias.data.text import role_and_column

Names = tuple[str, ...]


@dataclass(frozen=True)
class EventColumns:
    """The columns of an event log, by role.

    Every role except `event` may have several columns. Names with dots read nested
    columns: `event_attributes.object.object_id`. `items.item_id` reads the id of each
    item in the list `items`, and `event_params.search_term` reads the value of the key
    `search_term`.

    Attributes:
        event: The column that holds the kind of each event.
        impression: Kinds of events that show one item, or a list of items in display
            order.
        click: Kinds of events that count as a click.
        target: Further kinds of actions on an item; each kind becomes a column of
            counts.
        session: Id that all events of a list share. If several columns are given, they
            form the id together. Without this role, each event with a list of items is
            a session. If events have single items instead, a session ends when the user
            changes the query or pauses for longer than `gap`.
        query: The query. If several columns are given, the first column with a value
            counts.
        item: Id of the item, or a list of ids.
        shown: List of the items that a search returned, in rows of queries. These items
            count as shown if the source has no impressions.
        position: Rank of the item. Without this role, ranks follow the order of the
            list, or the times of events with single items.
        timestamp: Time of the event.
        user: Id of the user. If several columns are given, the first column with a
            value counts.
        device: The device. If several columns are given, the first column with a value
            counts.
        id: Unique id of an event; later events with the same id are left out.
        keep: Further columns of impressions to copy to the log, such as features. In
            the log, the column is named by the text after the last dot of its name.
        missing: Texts that mean a missing value, such as "" and "NA".

    >>> columns = PRESETS["ubi"].replaced(["click=click,add_to_cart", "target="])
    >>> columns.click, columns.target, columns.session
    (('click', 'add_to_cart'), (), ('query_id',))
    """

    event: str = "event"
    impression: Names = ("impression",)
    click: Names = ("click",)
    target: Names = ()
    session: Names = ("session",)
    query: Names = ("query",)
    item: Names = ("item",)
    shown: Names = ()
    position: Names = ("position",)
    timestamp: Names = ("timestamp",)
    user: Names = ("user",)
    device: Names = ("device",)
    id: Names = ()
    keep: Names = ()
    missing: Names = ("",)

    def replaced(self, texts: Sequence[str]) -> Self:
        """Returns a copy with new columns for the given roles.

        A text has the form ROLE=COLUMN,COLUMN and replaces the columns of the role. The
        text ROLE= removes the role. The text missing=TEXT adds TEXT to the markers of
        missing values.

        Raises:
            ValueError: A text does not have the form ROLE=COLUMN.
        """
        known = [field.name for field in fields(self)]
        given: dict[str, Any] = {}
        for text in texts:
            part, names = role_and_column(text, known)
            several = tuple(name for name in names.split(",") if name)
            if part != "event":
                before = self.missing if part == "missing" else ()
                given[part] = (*given.get(part, before), *several)
            elif several:
                given[part] = names
            else:
                raise ValueError(
                    "event= needs a column: the one with the kind of event"
                )
        return replace(self, **given)

    def asked(self) -> set[str]:
        """The roles whose columns differ from those of every preset."""
        usual = [EventColumns(), *PRESETS.values()]
        return {
            part
            for part, names in self.paths().items()
            if not any(names == each.paths()[part] for each in usual)
        }

    def paths(self) -> dict[str, Names]:
        """The columns of each role that names columns, not values such as "click"."""
        values = ("impression", "click", "target", "missing")
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["event"] = (self.event,)
        return {part: names for part, names in found.items() if part not in values}


# OpenSearch User Behavior Insights, schema 1.3.0: https://github.com/o19s/ubi. Its
# queries have hits in query_response_hit_ids, or before 1.1 in ..._objects_ids. Its
# sample generator writes ranks as event_attributes.rank, and flat columns as CSV.
_UBI = EventColumns(
    event="action_name",
    target=("add_to_cart", "purchase", "watch"),
    session=("query_id",),
    query=("user_query",),
    item=(
        "event_attributes.object.object_id",
        "event_attributes.object_id",
        "object_id",
    ),
    shown=(
        "query_response_hit_ids",
        "query_response_object_ids",
        "query_response_objects_ids",
    ),
    position=(
        "event_attributes.position.ordinal",
        "event_attributes.position.index",
        "event_attributes.rank",
        "rank",
    ),
    user=("client_id", "user_id"),
    click=("click", "click_through"),
)
# https://segment.com/docs/connections/spec/ecommerce/v2
_SEGMENT = EventColumns(
    impression=("Product List Viewed", "Product List Filtered"),
    click=("Product Clicked",),
    target=("Product Added", "Order Completed"),
    session=(),
    query=("properties.query", "properties.category", "properties.list_id"),
    item=("properties.products.product_id", "properties.product_id"),
    position=("properties.products.position", "properties.position"),
    user=("anonymousId", "userId"),
    device=("context.device.type",),
    id=("messageId",),
)
# https://docs.snowplow.io/docs/events/ootb-data/ecommerce-interactions
_SCHEMAS = "com_snowplowanalytics_snowplow_ecommerce"
_ACTION = f"unstruct_event_{_SCHEMAS}_snowplow_ecommerce_action_1"
_PRODUCT = f"contexts_{_SCHEMAS}_product_1"
_SNOWPLOW = EventColumns(
    event=f"{_ACTION}.type",
    impression=("list_view",),
    click=("list_click",),
    target=("add_to_cart", "transaction"),
    session=(),
    query=(f"{_ACTION}.name",),
    item=(f"{_PRODUCT}.id",),
    position=(f"{_PRODUCT}.position",),
    timestamp=("derived_tstamp",),
    user=("domain_userid", "user_id"),
    device=("dvce_type",),
    id=("event_id",),
)
# https://www.algolia.com/doc/rest-api/insights/push-events
_ALGOLIA = EventColumns(
    event="eventType",
    impression=("view",),
    target=("conversion",),
    session=("queryID",),
    query=("query",),
    item=("objectIDs",),
    position=("positions",),
    user=("userToken", "authenticatedUserToken"),
)
# https://support.google.com/analytics/answer/7029846 and .../ga4/reference/events
_GA4 = EventColumns(
    event="event_name",
    impression=("view_item_list", "view_search_results"),
    click=("select_item",),
    target=("add_to_cart", "purchase"),
    session=(),
    query=(
        "event_params.search_term",
        "event_params.item_list_name",
        "items.item_list_name",
        "event_params.item_list_id",
        "items.item_list_id",
    ),
    item=("items.item_id",),
    position=("items.item_list_index",),
    timestamp=("event_timestamp",),
    user=("user_pseudo_id", "user_id"),
    device=("device.category",),
    missing=("(not set)", "(not provided)", ""),
)
PRESETS: Mapping[str, EventColumns] = {
    "generic": EventColumns(),
    "ubi": _UBI,
    "ga4": _GA4,
    "segment": _SEGMENT,
    "snowplow": _SNOWPLOW,
    "algolia": _ALGOLIA,
}


def tracker_of(schema: pa.Schema) -> str | None:
    """The first preset whose event and item columns exist in a schema, or None.

    >>> text = pa.string()
    >>> tracker_of(pa.schema({"eventType": text, "objectIDs": pa.list_(text)}))
    'algolia'
    """
    for name, preset in PRESETS.items():
        items = [resolved(schema, path) for path in preset.item]
        if resolved(schema, preset.event) is not None and any(items):
            return name
    return None
