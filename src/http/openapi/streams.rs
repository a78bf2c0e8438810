//! The streams, and what is there for operators.

use super::super::params::{MAX_LABEL, MAX_SUBS, MAX_WAIT};
use super::schemas::A_POSITION;
use super::socket;
use super::tickets::{asking, asking_with_ticket};
use super::words::{
    JSON, answer, asked, empty, get_and_head, header, list, object, one_of, operation, oversized, pairs, passing,
    pattern, problem, query, schema, stream_of, text, whole,
};
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{OneOfBuilder, Schema};
use utoipa::openapi::{Content, PathItem, Required};

/// What can be wrong with a filter, a projection and how they are sent.
pub(super) const MALFORMED: &[&str] = &[
    "malformed-request",
    "malformed-filter",
    "filter-too-complex",
    "unknown-column",
    "unknown-operator",
    "operator-not-exact",
    "invalid-value",
];

/// What pairs that are no parameters mean.
pub(super) const FILTERS: &str = "Filters: `column=operator.value`, all must hold. Operators `eq neq gt gte lt lte in is like ilike`, \
    each with `not.` before it; `or=(a.eq.1,b.gt.2)`, `and=(...)`. The columns are those of the table.";

/// Which columns, and how.
pub(super) fn projecting(operation: OperationBuilder) -> OperationBuilder {
    let columns = text("Columns wanted, joined with `,`. The key and `row_version` are told beside the row anyway.");
    let numbers = one_of("`string`: int8 and numeric as strings, for readers that round.", ["number", "string"]);
    operation.parameter(query("select", columns)).parameter(query("numbers", numbers))
}

/// Filters and projection, for one table.
pub(super) fn selecting(operation: OperationBuilder) -> OperationBuilder {
    projecting(operation).parameter(pairs("filters", FILTERS))
}

fn subscribing(operation: OperationBuilder) -> OperationBuilder {
    let table = text("`scores`, or `schema.table`. Not with `sub`.").examples(["scores"]);
    let sub = pattern(
        &format!(
            "`<id>~<table>?<filters, encoded>`: one of several subscriptions, at most {MAX_SUBS}; the id has at most {MAX_LABEL} \
             characters. Instead of `table`, `select`, `numbers` and filters."
        ),
        "^[^~]+~.+$",
        "a~scores?league%3Deq.nfl",
    );
    let since =
        pattern("Begin after this position; `now`: with what comes. Without: a snapshot first.", SINCE, A_POSITION);
    let subs = query("sub", list("", sub)).explode(Some(true));
    selecting(operation.parameter(query("table", table)).parameter(subs).parameter(query("since", since)))
}

/// What `since` may be.
pub(super) const SINCE: &str = "^(now|(0|[1-9][0-9]{0,18})-[0-9a-f]{6}(\\.[0-9a-f]{6}){0,8}~?)$";

/// Answers that streams and polls share.
fn refusing(operation: OperationBuilder) -> OperationBuilder {
    let codes = [MALFORMED, &["invalid-position", "too-many-subscriptions"]].concat();
    operation
        .response("400", problem(&codes))
        .response("403", problem(&["origin-not-allowed"]))
        .response("404", problem(&["not-found"]))
        .response("406", problem(&["not-acceptable"]))
}

/// A HEAD that only says that the address is there.
pub(super) fn bare_head(mut item: PathItem, id: &str) -> PathItem {
    let head = operation(id, "streams", "Is the address there?", "Looks at no parameter.");
    item.head = Some(head.response("200", empty("It is.")).build());
    item
}

/// `/v1/stream`.
pub(in super::super) fn stream() -> PathItem {
    let last = pattern(
        "The last `id` received; wins over `since`. A browser's `EventSource` sends it by itself.",
        SINCE,
        A_POSITION,
    );
    let about = "Server-sent events: a snapshot, then every change, for as long as the connection lives; a `cursor` at least \
        every 15 s. Where it cannot begin or go on for now it says `bye` and ends: an `EventSource` comes back by itself. \
        A position that is not known any more is told as `reset`, and a snapshot.";
    let get =
        subscribing(operation("stream", "streams", "Follow tables", about)).parameter(asked("Last-Event-ID", last));
    let get = oversized(asking_with_ticket(refusing(get)))
        .response("200", events().build())
        .response("429", problem(&["connection-limit"]));
    let mut item = PathItem::default();
    item.get = Some(get.build());
    item.post = Some(stream_of_body());
    bare_head(item, "streamHead")
}

/// The same from a body, for filters that are too long for an address.
fn stream_of_body() -> Operation {
    let about =
        "The same stream. Each subscription may begin at a position of its own; `Last-Event-ID` wins over all of them.";
    let last = pattern("The last `id` received.", SINCE, A_POSITION);
    let many = list("Several.", socket::subscription()).min_items(Some(1)).max_items(Some(MAX_SUBS));
    let body = OneOfBuilder::new().item(socket::subscription()).item(many.build());
    let body = RequestBodyBuilder::new()
        .content(JSON, Content::new(Some(Schema::OneOf(body.build()))))
        .required(Some(Required::True));
    let post = operation("streamOfBody", "streams", "Follow tables, from a body", about)
        .parameter(asked("Last-Event-ID", last))
        .request_body(Some(body.build()))
        .response("200", events().build())
        .response("408", problem(&["request-timeout"]))
        .response("413", problem(&["payload-too-large"]))
        .response("415", problem(&["unsupported-media-type"]))
        .response("422", problem(&["invalid-value"]));
    oversized(asking(refusing(post))).build()
}

/// The stream itself.
fn events() -> ResponseBuilder {
    stream_of("Events.", schema("Event"))
        .header("Cache-Control", header("`no-store, no-transform`."))
        .header("X-Accel-Buffering", header("`no`: a proxy must not hold events back."))
}

/// `/v1/changes`.
pub(in super::super) fn changes() -> PathItem {
    let about = "The same as a stream as one JSON document: what happened since the position, waiting up to `wait` for \
        something to happen. Without `since` a snapshot.";
    let wait = whole(&format!("Seconds to wait; more than {} are {0}.", MAX_WAIT.as_secs())).minimum(Some(0));
    let position = || header("The next `since`.");
    let found = answer("Messages.", JSON, schema("Poll")).header("Rowcast-Position", position());
    let none = empty("Nothing happened.").header("Rowcast-Position", position());
    let get = subscribing(operation("changes", "streams", "Poll tables", about)).parameter(query("wait", wait));
    let passing = passing(&[
        "not-ready",
        "unavailable",
        "shutting-down",
        "table-unavailable",
        "snapshot-too-large",
        "snapshot-too-busy",
        "overloaded",
        "connection-limit",
    ]);
    let get = oversized(asking_with_ticket(refusing(get)))
        .response("200", found.header("Cache-Control", header("`no-store`.")).build())
        .response("204", none.header("Cache-Control", header("`no-store`.")).build())
        .response("410", problem(&["position-expired"]))
        .response("503", passing);
    let mut item = PathItem::default();
    item.get = Some(get.build());
    bare_head(item, "changesHead")
}

/// `/healthz`.
pub(in super::super) fn healthz() -> PathItem {
    let about = "Fails after five minutes without any sign of life: a restart cures a process that is stuck, not a database \
        that is away.";
    state(operation("healthz", "operating", "Is the process alive?", about), "Alive")
}

/// `/readyz`.
pub(in super::super) fn readyz() -> PathItem {
    let about = "Every condition by name, so that the reason is read where the question is asked.";
    state(operation("readyz", "operating", "Can it serve?", about), "Readiness")
}

/// `/openapi.json`.
pub(in super::super) fn document() -> PathItem {
    let about = "OpenAPI 3.2; `rowcast openapi` prints it.";
    let get = operation("openapi", "operating", "This document", about);
    let found = answer("The document.", JSON, object("OpenAPI.", [("openapi", text("Its version.").into())]));
    get_and_head(oversized(get).response("200", found.build()).build())
}

fn state(operation: OperationBuilder, name: &str) -> PathItem {
    let answer = |about| answer(about, JSON, schema(name)).header("Cache-Control", header("`no-store`.")).build();
    let get = oversized(operation).response("200", answer("Yes.")).response("503", answer("No."));
    get_and_head(get.build())
}
