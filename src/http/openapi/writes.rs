//! Writes: one row at a time, or several at once.

use super::super::batch::MAX_OPERATIONS;
use super::super::wishes::MAX_KEY;
use super::reads::{row_in_path, table_in_path};
use super::schemas::POSITION;
use super::tickets::asking;
use super::words::{
    AnySchema, JSON, answer, asked, closed, empty, header, list, nullable, object, one_of, operation, oversized,
    pattern, problem, schema, sometimes, text, whole,
};
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Content, PathItem, Required};

const MERGE_PATCH: &str = "application/merge-patch+json";

/// Adds the writes of a list's address.
pub(super) fn table(mut item: PathItem) -> PathItem {
    let about = "A new row. Columns that are not given get their default; the key may be one of them.";
    let post = writing(table_in_path(operation("insert", "writes", "Create a row", about)))
        .request_body(Some(body("The row's columns.", &[JSON])))
        .response("201", located(done(row("Created."))).build());
    item.post = Some(post.build());
    item
}

/// Adds the writes of a row's address.
pub(super) fn row_writes(mut item: PathItem) -> PathItem {
    item.patch = Some(patch());
    item.put = Some(put());
    item.delete = Some(delete());
    item
}

fn patch() -> Operation {
    let about = "RFC 7396: columns that are given replace, `null` is null, objects in json columns are merged.";
    let patch = based(writing(row_in_path(operation("update", "writes", "Change columns of a row", about))))
        .request_body(Some(body("The columns to change.", &[MERGE_PATCH, JSON])))
        .response("200", done(row("The row as it is now.")).build())
        .response("204", done(empty("`return=minimal`.")).build());
    patch.build()
}

fn put() -> Operation {
    let about = "With `If-Match` the row is replaced: columns that are not given get their default. With `If-None-Match: *` it is \
        created. Where a table needs no version, neither is needed.";
    let absent = asked("If-None-Match", one_of("`*`: the row must not be there.", ["*"]));
    let put = based(writing(row_in_path(operation("replace", "writes", "Replace or create a row", about))))
        .parameter(absent)
        .request_body(Some(body("The row's columns.", &[JSON])))
        .response("200", done(row("The row as it is now.")).build())
        .response("201", located(done(row("Created."))).build())
        .response("204", done(empty("`return=minimal`.")).build());
    put.build()
}

fn delete() -> Operation {
    let delete = based(writing(row_in_path(operation("delete", "writes", "Remove a row", "Takes no body."))));
    let delete = delete
        .response("200", told(row("`return=representation`: the row as it was.")).build())
        .response("204", told(empty("Gone.")).build());
    let mut delete = delete.build();
    // there is no body, and nothing that could be wrong with its columns
    delete.responses.responses.remove("415");
    delete
}

/// `/v1/batch`.
pub(in super::super) fn batch() -> PathItem {
    let about = "All or nothing, in this order, in one transaction. Each operation has the version it is based on; a problem names \
        the operation that failed in `errors`.";
    let batch = closed(object("Operations.", [("ops", operations().into())]));
    let answered = object(
        "All of them.",
        [
            ("rows", list("In the order of the operations.", batch_row()).into()),
            (
                "position",
                nullable(text("As the header; null when it is not known.").pattern(Some(POSITION)), Type::String)
                    .into(),
            ),
        ],
    );
    let body = RequestBodyBuilder::new().content(JSON, Content::new(Some(batch))).required(Some(Required::True));
    let post = writing(operation("batch", "writes", "Several writes, all or none", about))
        .request_body(Some(body.build()))
        .response("412", conflict())
        .response("428", problem(&["precondition-required"]))
        .response("200", told(answer("Done.", JSON, answered)).build())
        .response("204", told(empty("Repeated, and a column of the first answer is not published any more.")).build());
    PathItem::new(HttpMethod::Post, post.build())
}

/// The operations of a batch.
pub(super) fn operations() -> ArrayBuilder {
    let one = [
        operation_in("insert", "row", false),
        operation_in("replace", "row", true),
        operation_in("update", "set", true),
        operation_in("delete", "", true),
    ];
    let one = one.into_iter().fold(OneOfBuilder::new(), |all, op| all.item(op));
    list("The operations.", Schema::OneOf(one.build())).min_items(Some(1)).max_items(Some(MAX_OPERATIONS))
}

/// What came of one of them.
pub(super) fn batch_row() -> Object {
    object(
        "What came of one operation.",
        [
            ("op", one_of("What was done.", ["insert", "update", "replace", "delete"]).into()),
            ("table", text("The table.").into()),
            ("key", schema("Key").into()),
            ("version", schema("Version").into()),
            ("row?", schema("Row").into()),
        ],
    )
}

fn operation_in(op: &str, values: &str, keyed: bool) -> Schema {
    let mut members: Vec<(&str, AnySchema)> =
        vec![("op", one_of("What to do.", [op]).into()), ("table", text("`scores`, or `schema.table`.").into())];
    if keyed {
        members.push(("key", text("As rows are told with.").into()));
        members.push((
            "version?",
            whole("The version read. Not needed where the table needs none.").minimum(Some(0)).into(),
        ));
    }
    if !values.is_empty() {
        members.push((values, columns("Columns.").into()));
    }
    Schema::Object(closed(object("", members)))
}

fn columns(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object).description(Some(about))
}

fn body(about: &str, media: &[&str]) -> RequestBody {
    let content = || Content::new(Some(columns(about)));
    let body = media.iter().fold(RequestBodyBuilder::new(), |body, media| body.content(*media, content()));
    body.required(Some(Required::True)).build()
}

/// What any write may say and be told.
fn writing(operation: OperationBuilder) -> OperationBuilder {
    let prefer = "`return=minimal`: no body. `return=representation`: the row. Others are passed over.";
    let key = format!(
        "1 to {MAX_KEY} visible ASCII characters, one for one write: a repeated request is answered with what the first did, for 24 h."
    );
    let operation = operation
        .parameter(asked("Prefer", text(prefer).examples(["return=minimal"])))
        .parameter(asked("Idempotency-Key", pattern(&key, "^[!-~]{1,255}$", "7e0c3d2a")))
        .response("400", problem(&["malformed-request", "invalid-value"]))
        .response("403", problem(&["writing-not-allowed", "forbidden", "origin-not-allowed"]))
        .response("404", problem(&["not-found"]))
        .response("406", problem(&["not-acceptable"]))
        .response("408", problem(&["request-timeout"]))
        .response("409", perhaps_later(problem(&["conflict", "in-progress", "retry"])))
        .response("413", problem(&["payload-too-large"]))
        .response("415", problem(&["unsupported-media-type"]))
        .response(
            "422",
            problem(&[
                "invalid-value",
                "unknown-column",
                "read-only-column",
                "constraint-violation",
                "refused-by-database",
                "idempotency-key-reused",
            ]),
        )
        .response("500", problem(&["internal"]))
        .response("503", perhaps_later(problem(&["unavailable", "not-ready", "table-unavailable", "outcome-unknown"])));
    oversized(asking(operation))
}

/// What a change of a row that is there may say and be told.
fn based(operation: OperationBuilder) -> OperationBuilder {
    let about = "The entity tag of the version read; several: any of them; `*`: any version.";
    operation
        .parameter(asked("If-Match", text(about).examples(["\"42\""])))
        .response("412", conflict())
        .response("428", problem(&["precondition-required"]))
}

fn conflict() -> Response {
    let tag = sometimes("Of the row in `current`.");
    ResponseBuilder::from(problem(&["version-conflict"])).header("ETag", tag).build()
}

fn perhaps_later(problem: Response) -> Response {
    let about = "Seconds. Without it the same request will not succeed by being repeated as it is.";
    ResponseBuilder::from(problem).header("Retry-After", sometimes(about)).build()
}

fn row(about: &str) -> ResponseBuilder {
    answer(about, JSON, schema("Row"))
}

/// Headers of every write that was done.
fn told(response: ResponseBuilder) -> ResponseBuilder {
    let position = "A state that contains the write: give it to a read as `Rowcast-Min-Position`, and stream from that answer's position.";
    response
        .header("Rowcast-Position", sometimes(position))
        .header("Rowcast-Position-Unknown", sometimes("`?1` instead, when the stream did not get there in 5 s."))
        .header("Preference-Applied", sometimes("What was followed."))
        .header("Idempotency-Replayed", sometimes("`true`: an earlier request did it."))
        .header("Cache-Control", header("`no-store`."))
}

fn done(response: ResponseBuilder) -> ResponseBuilder {
    told(response).header("ETag", header("The row's new version."))
}

fn located(response: ResponseBuilder) -> ResponseBuilder {
    response.header("Location", header("Where the row is."))
}
