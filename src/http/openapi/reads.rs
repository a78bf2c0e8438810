//! Cached reads: lists and rows.

use super::super::read_params::MAX_OFFSET;
use super::schemas::{A_POSITION, POSITION};
use super::streams::{FILTERS, MALFORMED, projecting, selecting};
use super::tickets::asking;
use super::words::{
    FORM, JSON, answer, asked, empty, get_and_head, header, list, object, operation, oversized, pairs, passing, path,
    pattern, problem, query, schema, sometimes, text, whole,
};
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, PathItem, Required};

/// The table in the path.
pub(super) fn table_in_path(operation: OperationBuilder) -> OperationBuilder {
    operation.parameter(path("table", text("`scores`, or `schema.table`.").min_length(Some(1)).examples(["scores"])))
}

/// Table and key.
pub(super) fn row_in_path(operation: OperationBuilder) -> OperationBuilder {
    let key = "The key columns' text, percent-encoded, joined with `,`: as rows are told with. A `,` between columns stays as it is.";
    table_in_path(operation).parameter(path("key", text(key).examples(["7"])))
}

/// What any read may say and be told.
fn reading(operation: OperationBuilder) -> OperationBuilder {
    let min = "Answer from this state or a later one; waits up to 5 s for it.";
    let tags = "Entity tags that are held: 304 when one is still right. `*`: any.";
    let codes = [MALFORMED, &["invalid-position"]].concat();
    let operation = operation
        .parameter(asked("Rowcast-Min-Position", pattern(min, POSITION, A_POSITION)))
        .parameter(asked("If-None-Match", text(tags).examples(["\"42\""])))
        .response("400", problem(&codes))
        .response("403", problem(&["origin-not-allowed"]))
        .response("404", problem(&["not-found"]))
        .response("406", problem(&["not-acceptable"]))
        .response("410", problem(&["position-expired"]))
        .response(
            "503",
            passing(&[
                "not-ready",
                "unavailable",
                "shutting-down",
                "table-unavailable",
                "position-not-reached",
                "snapshot-too-large",
            ]),
        );
    oversized(asking(operation))
}

/// The headers of 200 and of 304.
fn cached(response: ResponseBuilder, tag: &str) -> ResponseBuilder {
    response
        .header("ETag", header(tag))
        .header(
            "Rowcast-Position",
            header("The state this is. A stream that begins here neither misses nor repeats a change."),
        )
        .header("Cache-Control", header("As the table's settings say."))
        .header("Age", header("Seconds since the database was read."))
        .header("Cache-Status", header("RFC 9211: where the answer came from."))
        .header("Server-Timing", header("Where the time went."))
        .header("Vary", header("What else the answer depends on."))
}

fn listed(response: ResponseBuilder) -> ResponseBuilder {
    cached(response, "Weak: the same rows, whatever they are packed in.")
        .header("Rowcast-More", sometimes("`?1`: there are more rows than `limit`."))
        .header("Link", sometimes("`rel=\"next\"`: where they are, when an address can say it."))
}

fn lists(operation: OperationBuilder) -> OperationBuilder {
    let rows = list("The rows.", schema("Row"));
    reading(table_in_path(operation))
        .response("200", listed(answer("Rows.", JSON, rows)).build())
        .response("304", listed(empty("What is held is still right.")).build())
}

fn order(operation: OperationBuilder) -> OperationBuilder {
    operation
        .parameter(query("order", text(ORDER).examples(["score.desc.nullslast,id"])))
        .parameter(query("limit", whole(LIMIT).minimum(Some(0))))
        .parameter(query("offset", whole("Rows to pass over.").minimum(Some(0)).maximum(Some(MAX_OFFSET as f64))))
}

const ORDER: &str =
    "Columns, each with `.asc` or `.desc`, then `.nullsfirst` or `.nullslast`. The key comes last in any case.";
const LIMIT: &str = "At most so many rows; the gateway's `read_max_rows` (1,000) is the most and the default.";

/// `order` is read here, too.
fn malformed_order(mut operation: Operation) -> Operation {
    let codes = [MALFORMED, &["invalid-position", "malformed-order"]].concat();
    operation.responses.responses.insert("400".to_owned(), problem(&codes).into());
    operation
}

/// `GET`, `HEAD` and `QUERY /v1/tables/{table}`.
pub(super) fn table() -> PathItem {
    let about = "Rows as a stream's snapshot would have them, from a cache that the stream keeps true.";
    let get = order(selecting(operation("list", "reads", "Read rows", about)));
    let mut get = malformed_order(lists(get).build());
    for status in ["200", "304"] {
        if let Some(utoipa::openapi::RefOr::T(response)) = get.responses.responses.get_mut(status) {
            response.headers.insert("Accept-Query".to_owned(), header("What the body of a `QUERY` is.").into());
        }
    }
    let mut item = get_and_head(get);
    item.query = Some(by_query());
    item
}

/// The same with the parameters in the body.
fn by_query() -> Operation {
    let about = "As `GET`, with the parameters in the body: for filters that are too long for an address.";
    let form = object(
        FILTERS,
        [
            ("select?", text("Columns wanted.").into()),
            ("numbers?", text("`string` or `number`.").into()),
            ("order?", text(ORDER).into()),
            ("limit?", whole(LIMIT).minimum(Some(0)).into()),
            ("offset?", whole("Rows to pass over.").minimum(Some(0)).maximum(Some(MAX_OFFSET as f64)).into()),
        ],
    );
    let form = ObjectBuilder::from(form).additional_properties(Some(ObjectBuilder::new().schema_type(Type::String)));
    let body = RequestBodyBuilder::new().content(FORM, Content::new(Some(form))).required(Some(Required::True));
    let query = lists(operation("query", "reads", "Read rows by a long filter", about))
        .parameter(pairs("filters", FILTERS))
        .request_body(Some(body.build()))
        .response("408", problem(&["request-timeout"]))
        .response("413", problem(&["payload-too-large"]))
        .response("415", problem(&["unsupported-media-type"]));
    malformed_order(query.build())
}

/// `GET` and `HEAD /v1/tables/{table}/{key}`.
pub(super) fn row() -> PathItem {
    let about = "One row. 404 is the same for a row, a table and a column that is not there.";
    let tag = "Strong: the row's version, to be sent back as `If-Match`.";
    let get = projecting(operation("row", "reads", "Read one row", about));
    let get = reading(row_in_path(get))
        .response("200", cached(answer("The row.", JSON, schema("Row")), tag).build())
        .response("304", cached(empty("What is held is still right."), tag).build());
    get_and_head(get.build())
}
