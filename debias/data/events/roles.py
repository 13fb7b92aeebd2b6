"""Which column of an event log plays which part, and what trackers call theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import pyarrow as pa

from debias.data.nested import resolved
from debias.data.text import near, quoted

Names = tuple[str, ...]


@dataclass(frozen=True)
class EventColumns:
    """Which column of a log of events plays which part.

    Every part but `event` takes several names, parted by commas. Names with dots go
    into nested columns: `event_attributes.object.object_id`, the id of each of a list
    of items as `items.item_id`, the value of a key as `event_params.search_term`.

    Attributes:
        event: The column that says what happened.
        impression: Events that show items: one, or a list of them in display order.
        click: Events that count as a click.
        target: Further events on an item, each a column of counts.
        session: What the events of one shown list share; of several columns, all of
            them together. Without it, each event that shows a list of items is a
            session; and single impressions are, for as long as the user asks the same
            and pauses no longer than `gap`.
        query: What was asked; of several columns, the first that holds something.
        item: Which item, or a list of items.
        shown: A list of the items shown, on rows that are no events: what a search
            returned. It is read where no event is an impression.
        position: The rank of the item; without it, the order of list or time.
        timestamp: When.
        user: Who; several as those of `query`.
        device: On what; several as those of `query`.
        id: What names an event; one that comes again is a copy, and left out.
        keep: What else to keep of an impression, as a column of the name behind the
            last dot: features, presentation.
        missing: Text that stands for no value; -c missing=NA is that beside "".

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
        """These columns, but for what texts ROLE=COLUMN,COLUMN say; ROLE= is none.

        Raises:
            ValueError: A text is no ROLE=COLUMN.
        """
        known = [field.name for field in fields(self)]
        given: dict[str, Any] = {}
        for text in texts:
            part, equals, names = text.partition("=")
            if not equals or part not in known:
                advice = f"write {part}=NAME" if part in known else near(part, known)
                raise ValueError(f"{quoted(text)} is not ROLE=COLUMN: {advice}")
            several = tuple(name for name in names.split(",") if name)
            if part != "event":
                before = self.missing if part == "missing" else ()
                given[part] = (*given.get(part, before), *several)
            elif several:
                given[part] = names
            else:
                raise ValueError(
                    "event= names no column; name the column that says what happened"
                )
        return replace(self, **given)

    def asked(self) -> set[str]:
        """The parts that somebody named columns for: neither defaults nor presets."""
        usual = [EventColumns(), *PRESETS.values()]
        return {
            part
            for part, names in self.paths().items()
            if not any(names == each.paths()[part] for each in usual)
        }

    def paths(self) -> dict[str, Names]:
        """The columns of each part that reads some."""
        values = ("impression", "click", "target", "missing")
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["event"] = (self.event,)
        return {part: names for part, names in found.items() if part not in values}


# OpenSearch User Behavior Insights: https://github.com/o19s/ubi, schema 1.3.0, whose
# queries hold hits as query_response_hit_ids, and before 1.1 as ..._objects_ids. Its
# generator of samples writes ranks as event_attributes.rank, and flat columns as CSV.
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
    """The preset whose events a schema has; None if it is of none.

    >>> text = pa.string()
    >>> tracker_of(pa.schema({"eventType": text, "objectIDs": pa.list_(text)}))
    'algolia'
    """
    for name, preset in PRESETS.items():
        items = [resolved(schema, path) for path in preset.item]
        if resolved(schema, preset.event) is not None and any(items):
            return name
    return None
