//! Messages, problems and their parts as schemas.
//!
//! Must not know: routes. Invariant: what is required here is in every such object that is sent; the tests hold real
//! answers against it.

use super::super::problem::codes;
use super::words::{AnySchema, flag, header, list, nullable, object, one_of, pattern, problem, schema, text, whole};
use crate::hub::ResetReason;
use crate::wire::CloseReason;
use utoipa::openapi::Components;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    ComponentsBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};

/// A position; also how the header and the parameter look.
pub(super) const POSITION: &str = "^(0|[1-9][0-9]{0,18})-[0-9a-f]{6}(\\.[0-9a-f]{6}){0,8}$";

/// An example of one: of a tick that is past everywhere. Who tries it is told so; one that is ahead would be waited for.
pub(super) const A_POSITION: &str = "1-9f3a2c";

/// A key.
const KEY: &str = "^([A-Za-z0-9._~-]|%[0-9A-F]{2})*(,([A-Za-z0-9._~-]|%[0-9A-F]{2})*)*$";

/// Why a stream says good-bye.
fn bye_reasons() -> impl Iterator<Item = &'static str> {
    CloseReason::ALL.into_iter().filter(|reason| reason.says_bye()).map(CloseReason::label)
}

/// All of them.
pub(super) fn components() -> Components {
    let named: Vec<(&str, AnySchema)> = vec![
        (
            "Position",
            pattern("A state of the database, the same on every gateway. Opaque.", POSITION, A_POSITION).into(),
        ),
        ("Key", pattern("The key columns' text, percent-encoded, joined with `,`.", KEY, "7").into()),
        (
            "Version",
            whole("`row_version`. It rises with every change of the row.")
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .examples([42])
                .into(),
        ),
        ("Row", row().into()),
        ("Snapshot", snapshot()),
        ("Changes", changes()),
        ("Reset", reset()),
        ("SubscriptionProblem", subscription_problem()),
        ("Message", any_of("One message of a poll.", &["Snapshot", "Changes", "Reset", "SubscriptionProblem"])),
        ("Cursor", cursor()),
        ("Bye", bye()),
        ("Event", event()),
        ("Poll", poll()),
        ("Problem", problem_document()),
        ("Alive", object("Is the process alive?", [("alive", flag("False: a restart would help.").into())]).into()),
        ("Readiness", readiness()),
    ];
    let all = named.into_iter().fold(ComponentsBuilder::new(), |all, (name, schema)| all.schema(name, schema));
    super::tickets::schemes(all)
        .header("X-Request-Id", header("Names the request in the log."))
        .header("No-Store", header("`no-store`."))
        // any method that is not in the document
        .response("MethodNotAllowed", not_allowed())
        .build()
}

fn not_allowed() -> Response {
    ResponseBuilder::from(problem(&["method-not-allowed"])).header("Allow", header("The methods that are.")).build()
}

fn row() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object).description(Some(
        "The published columns of one row, as Postgres writes them as JSON, digits exact. `row_version` is one of them.",
    ))
}

fn any_of(about: &str, names: &[&str]) -> AnySchema {
    let one = names.iter().fold(OneOfBuilder::new().description(Some(about)), |one, name| one.item(schema(name)));
    Schema::OneOf(one.build()).into()
}

/// `type` and `sub`, which begin every message.
fn begin(kind: &str) -> [(&'static str, AnySchema); 2] {
    [("type", one_of("What this is.", [kind]).into()), ("sub", text("The label of the subscription.").into())]
}

fn told() -> [(&'static str, AnySchema); 3] {
    [
        ("table", text("The table.").into()),
        ("position", schema("Position").into()),
        ("more", flag("The next message goes on with this one.").into()),
    ]
}

fn snapshot() -> AnySchema {
    let rows = [("rows", list("The rows, in no order.", held("One row.")).into())];
    object("Replaces everything held for the subscription.", begin("snapshot").into_iter().chain(told()).chain(rows))
        .into()
}

fn changes() -> AnySchema {
    let change = object(
        "One change.",
        [
            ("op", one_of("`delete`: gone, or out of the filter.", ["insert", "update", "delete"]).into()),
            ("key", schema("Key").into()),
            ("version", schema("Version").into()),
            ("row?", schema("Row").into()),
        ],
    );
    let rest = [
        ("at", text("When the tick was made.").format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into()),
        ("changes", list("At most one for each key.", change).into()),
    ];
    object("One tick: apply it whole.", begin("changes").into_iter().chain(told()).chain(rest)).into()
}

fn reset() -> AnySchema {
    let rest = [
        ("table", text("The table.").into()),
        ("reason", one_of("Why.", ResetReason::ALL.iter().map(|r| r.label())).into()),
    ];
    object("What is held is worthless; a snapshot follows.", begin("reset").into_iter().chain(rest)).into()
}

fn subscription_problem() -> AnySchema {
    let problem = object(
        "As in problem documents, without `request_id`.",
        [
            ("type", text("A stable address.").into()),
            ("title", text("What it is about.").into()),
            ("status", whole("The HTTP status it would be.").into()),
            ("code", one_of("A stable name.", codes()).into()),
            ("detail", text("What is wrong, and what would be right.").into()),
        ],
    );
    let about = "The subscription ended; the others go on.";
    object(about, begin("problem").into_iter().chain([("problem", problem.into())])).into()
}

fn cursor() -> AnySchema {
    object(
        "Nothing happened that matters here; the position moved.",
        [
            ("type", one_of("What this is.", ["cursor"]).into()),
            ("position", nullable(text("The resume point.").pattern(Some(POSITION)), Type::String).into()),
            ("lag_ms", whole("At most this old is the state at the position.").minimum(Some(0)).into()),
        ],
    )
    .into()
}

fn bye() -> AnySchema {
    object(
        "The connection ends as planned: come back, to any gateway.",
        [
            ("type", one_of("What this is.", ["bye"]).into()),
            ("reason", one_of("Why.", bye_reasons()).into()),
            ("retry_ms", whole("Wait so long first.").minimum(Some(0)).into()),
        ],
    )
    .into()
}

/// One event of a stream: data comes unnamed, so that `onmessage` alone receives it.
fn event() -> AnySchema {
    let id = || text("Send it back as `Last-Event-ID`. One that ends in `~` begins with a snapshot.");
    let data = |of: AnySchema| text("JSON.").content_media_type("application/json").content_schema(Some(of));
    let named = |name: &str, of: AnySchema| {
        object(
            name,
            [("event", one_of("The event's name.", [name]).into()), ("data", data(of).into()), ("id?", id().into())],
        )
    };
    let unnamed = ObjectBuilder::from(object(
        "Data.",
        [("data", data(any_of("Rows.", &["Snapshot", "Changes"])).into()), ("id?", id().into())],
    ));
    // without a name: what is named fits one of the others
    let unnamed = unnamed.property("event", one_of("The default.", ["message"]));
    let one = OneOfBuilder::new().description(Some("One server-sent event.")).item(unnamed.build());
    let names = [("cursor", "Cursor"), ("reset", "Reset"), ("problem", "SubscriptionProblem"), ("bye", "Bye")];
    let one = names.iter().fold(one, |one, (name, of)| one.item(named(name, schema(of).into())));
    Schema::OneOf(one.build()).into()
}

fn poll() -> AnySchema {
    object(
        "What a stream would have told since the position.",
        [
            ("position", nullable(text("The next `since`.").pattern(Some(POSITION)), Type::String).into()),
            ("messages", list("In order.", schema("Message")).into()),
        ],
    )
    .into()
}

fn problem_document() -> AnySchema {
    object(
        "RFC 9457.",
        [
            ("type", pattern("A stable address.", "^/problems/[a-z-]+$", "/problems/not-found").into()),
            ("title", text("What it is about.").into()),
            ("status", whole("The HTTP status.").into()),
            ("detail", text("What is wrong, and what would be right.").into()),
            ("code", one_of("A stable name.", codes()).into()),
            ("request_id", text("Names the request in the log.").into()),
            ("current?", held("The row as it is now.").into()),
            ("errors?", list("The operations of a batch that failed.", failed()).into()),
            ("sqlstate?", pattern("What the database said.", "^[0-9A-Z]{5}$", "23505").into()),
            ("retry_after?", whole("Seconds; as the header `Retry-After`.").minimum(Some(0)).into()),
        ],
    )
    .into()
}

pub(super) fn held(about: &str) -> Object {
    let members = [("key", schema("Key").into()), ("version", schema("Version").into()), ("row", schema("Row").into())];
    object(about, members)
}

fn failed() -> Object {
    let members = [
        ("op", whole("Its index.").minimum(Some(0)).into()),
        ("code", one_of("A stable name.", codes()).into()),
        ("detail", text("What is wrong, and what would be right.").into()),
    ];
    object("One.", members)
}

fn readiness() -> AnySchema {
    let condition = object(
        "One condition.",
        [
            ("name", text("Its name.").into()),
            ("ok", flag("Does it hold?").into()),
            ("reason", nullable(text("Why not."), Type::String).into()),
        ],
    );
    object(
        "Can it serve, and why not?",
        [
            ("ready", flag("All conditions hold.").into()),
            ("conditions", list("Each by name.", condition).into()),
            ("role", one_of("Its part in making ticks.", ["none", "leader", "follower"]).into()),
            ("doorbell", text("`ok`, or what is done instead.").into()),
            ("position", nullable(text("The newest tick.").pattern(Some(POSITION)), Type::String).into()),
            ("lag_ms", nullable(whole("How long ago the database confirmed it."), Type::Integer).into()),
            ("tables", whole("Watched tables.").into()),
            ("shapes", whole("What is followed.").into()),
            ("subscriptions", whole("By how many.").into()),
        ],
    )
    .into()
}
