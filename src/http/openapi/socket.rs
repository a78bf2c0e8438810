//! The WebSocket, and the messages of all transports as one JSON Schema.
//!
//! Must not know: how messages come about. Invariant: what streams and the WebSocket both say is described once; the schema
//! takes it from the document's components.

use super::super::params::MAX_LABEL;
use super::super::ws;
use super::schemas::{self, POSITION};
use super::words::{
    AnySchema, JSON, answer, asked, closed, empty, flag, get_and_head, header, list, nullable, object, one_of,
    operation, oversized, passing, pattern, problem, schema, text, whole,
};
use super::{streams, tickets, writes};
use actix_web::HttpResponse;
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::openapi::PathItem;
use utoipa::openapi::schema::{Object, Type};

/// `/v1/ws`.
pub(in super::super) fn websocket() -> PathItem {
    let about = format!(
        "A WebSocket (RFC 6455), subprotocol `{}`: subscriptions come and go, rows are written, on one connection. Messages are \
         JSON texts, described in `/v1/schemas/message.json`. The first is `{{\"type\":\"init\"}}`. How connections end is told \
         by the code of the close frame.",
        ws::PROTOCOL
    );
    let origin = text("Of the page that connects: the gateway's own, or one that is allowed. Sent by browsers.");
    let needed = problem(&["upgrade-required"]);
    let needed = utoipa::openapi::response::ResponseBuilder::from(needed)
        .header("Upgrade", header("`websocket`."))
        .header("Sec-WebSocket-Version", header("`13`."));
    let get = operation("websocket", "streams", "Follow and write tables over a WebSocket", &about)
        .parameter(asked("Origin", origin))
        .response("101", empty("The connection is a WebSocket from here on.").build())
        .response("400", problem(&["malformed-request"]))
        .response("403", problem(&["origin-not-allowed"]))
        .response("426", needed.build())
        .response("503", passing(&["unavailable", "not-ready"]));
    let mut item = PathItem::default();
    item.get = Some(oversized(tickets::asking_with_ticket(get)).build());
    streams::bare_head(item, "websocketHead")
}

/// `/v1/schemas/message.json`.
pub(in super::super) fn message_schema() -> PathItem {
    let about = "JSON Schema 2020-12. At its root every message the gateway sends, over any transport; at `#/$defs/ClientMessage` \
        those that a WebSocket client sends.";
    let get = operation("messageSchema", "operating", "The messages as JSON Schema", about);
    let members = [("$schema", text("Its dialect.").into()), ("$defs", object("The messages.", []).into())];
    let found = answer("The schema.", JSON, object("JSON Schema.", members));
    get_and_head(oversized(get).response("200", found.build()).build())
}

/// `GET /v1/schemas/message.json`.
pub(in super::super) async fn serve_messages() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("Content-Type", JSON))
        .insert_header(("Cache-Control", "no-cache"))
        .body(MESSAGES.as_str())
}

/// Kept ready, as the document.
static MESSAGES: LazyLock<String> = LazyLock::new(|| serde_json::to_string_pretty(&messages()).unwrap_or_default());

/// Messages of the gateway. `Message` and `Event` are how polls and streams pack some of them.
const SENT: &[&str] = &[
    "Snapshot",
    "Changes",
    "Reset",
    "Cursor",
    "Bye",
    "SubscriptionProblem",
    "Ready",
    "Subscribed",
    "Unsubscribed",
    "Ack",
    "Conflict",
    "WriteProblem",
    "ConnectionProblem",
    "Pong",
    "Renewed",
    "Reauth",
];

fn messages() -> Value {
    let mut components = schemas::components();
    let of_socket = sent().into_iter().chain(heard());
    components.schemas.extend(of_socket.map(|(name, schema)| (name.to_owned(), schema)));
    let all = serde_json::to_value(&components.schemas).unwrap_or_default();
    let mut defs = serde_json::Map::new();
    let heard_names: Vec<&str> = heard().iter().map(|(name, _)| *name).collect();
    let mut wanted: Vec<String> = SENT.iter().chain(&heard_names).map(|name| (*name).to_owned()).collect();
    // those, and what they are made of
    while let Some(name) = wanted.pop() {
        if defs.contains_key(&name) {
            continue;
        }
        let mut of_it = all[&name].clone();
        rewrite(&mut of_it, &mut wanted);
        defs.insert(name, of_it);
    }
    let one_of =
        |names: &[&str]| -> Value { names.iter().map(|n| json!({ "$ref": format!("#/$defs/{n}") })).collect() };
    let client = json!({ "description": "What a WebSocket client sends.", "oneOf": one_of(&heard_names) });
    defs.insert("ClientMessage".to_owned(), client);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Messages of Rowcast, version 1",
        "description": "What the gateway sends. Members that are not named here may come with later versions.",
        "oneOf": one_of(SENT), "$defs": defs,
    })
}

/// References point into this document; what they point at is noted.
fn rewrite(schema: &mut Value, wanted: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                let target = value.as_str().and_then(|v| v.strip_prefix("#/components/schemas/")).map(str::to_owned);
                match target {
                    Some(target) if name == "$ref" => {
                        *value = json!(format!("#/$defs/{target}"));
                        wanted.push(target);
                    }
                    _ => rewrite(value, wanted),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite(value, wanted)),
        _ => {}
    }
}

type Named = (&'static str, AnySchema);

fn kind(name: &'static str) -> Named {
    ("type", one_of("What this is.", [name]).into())
}

fn id() -> Named {
    ("id", text("The client's name for the write.").into())
}

fn token() -> AnySchema {
    nullable(text("A token, unless one was shown with the handshake. Null: none."), Type::String).into()
}

/// What only a WebSocket is told.
fn sent() -> Vec<Named> {
    let left = || whole("Seconds.").minimum(Some(0));
    let expires = nullable(whole("Seconds; null without a token."), Type::Integer);
    let heartbeat = whole("Something is told at least so often, in milliseconds.").minimum(Some(1));
    let ready = [kind("ready"), ("heartbeat_ms", heartbeat.into()), ("token_expires_in", expires.into())];
    let sub = || ("sub", text("The label of the subscription.").into());
    let position = nullable(
        text("A state that contains the write; null when it is not known.").pattern(Some(POSITION)),
        Type::String,
    );
    let rows = list("In the order of the operations.", writes::batch_row());
    let ack = [
        kind("ack"),
        id(),
        ("rows", rows.into()),
        ("position", position.into()),
        ("replayed?", flag("An earlier write with this `idempotency_key` did it.").into()),
    ];
    let current: AnySchema = serde_json::from_value(json!({
        "description": "The row as it is now; null when it is not told.",
        "oneOf": [schemas::held("The row."), { "type": "null" }],
    }))
    .unwrap_or_else(|_| schema("Row").into());
    let conflict = [kind("conflict"), id(), ("op", whole("Which operation, from 0.").into()), ("current", current)];
    let problem = || ("problem", schema("Problem").into());
    vec![
        ("Ready", object("The connection can be used.", ready).into()),
        ("Subscribed", object("It is taken: later `cursor`s are also its own.", [kind("subscribed"), sub()]).into()),
        ("Unsubscribed", object("Nothing of it comes after this.", [kind("unsubscribed"), sub()]).into()),
        ("Ack", object("The write is done.", ack).into()),
        ("Conflict", object("Nothing was written: the row has another version.", conflict).into()),
        ("WriteProblem", object("The write was not carried out.", [kind("problem"), id(), problem()]).into()),
        (
            "ConnectionProblem",
            without(
                "sub",
                without("id", object("A message had no effect; nothing ended.", [kind("problem"), problem()])),
            ),
        ),
        ("Renewed", object("Answers `auth`.", [kind("auth"), ("token_expires_in", left().into())]).into()),
        (
            "Reauth",
            object(
                "The token is soon over: send another with `auth`.",
                [kind("reauth"), ("expires_in", left().into())],
            )
            .into(),
        ),
        ("Pong", object("Answers `ping`.", [kind("pong")]).into()),
    ]
}

/// The same, without a member of this name: what tells it from others of its `type`.
fn without(name: &str, schema: impl Into<AnySchema>) -> AnySchema {
    let mut json = serde_json::to_value(schema.into()).unwrap_or_default();
    json["properties"][name] = json!({ "type": "null", "description": "Not there." });
    serde_json::from_value(json).unwrap_or_else(|_| text("").into())
}

/// What a WebSocket client sends.
fn heard() -> Vec<Named> {
    let message = |about, members: Vec<Named>| -> AnySchema { closed(object(about, members)).into() };
    let label = || text("The label of the subscription.");
    let write_id = pattern(&format!("A name for the write, of at most {MAX_LABEL} bytes."), "^.+$", "w1");
    let key = nullable(text("As the header `Idempotency-Key`."), Type::String);
    let mut subscribe: Vec<Named> = vec![kind("subscribe")];
    subscribe.extend(subscription_members());
    let write = vec![
        kind("write"),
        ("id", write_id.into()),
        ("ops", writes::operations().into()),
        ("idempotency_key?", key.into()),
    ];
    vec![
        ("Init", message("The first message.", vec![kind("init"), ("token?", token())])),
        ("Subscribe", message("Begins a subscription.", subscribe)),
        ("Unsubscribe", message("Ends one.", vec![kind("unsubscribe"), ("sub", label().into())])),
        ("Write", message("Writes rows, all or none.", write)),
        (
            "Auth",
            message(
                "Hands in a new token of the same subject and role.",
                vec![kind("auth"), ("token", text("The token.").into())],
            ),
        ),
        ("Ping", message("Asks for `pong`.", vec![kind("ping")])),
    ]
}

/// Of a `subscribe`, without its `type`.
fn subscription_members() -> Vec<Named> {
    let sub = format!("The label of the subscription, of at most {MAX_LABEL} characters; `1` when it is not given.");
    let optional = |about: &str| -> AnySchema { nullable(text(about), Type::String).into() };
    vec![
        ("sub?", pattern(&sub, "^.+$", "1").into()),
        ("table", text("`scores`, or `schema.table`.").into()),
        ("where?", optional("Filters, as in a query string: `league=eq.nfl&score=gte.10`.")),
        ("select?", optional("Columns wanted, joined with `,`.")),
        (
            "numbers?",
            one_of("`string`: int8 and numeric as strings, for readers that round.", ["number", "string"]).into(),
        ),
        (
            "since?",
            nullable(
                text("Begin after this position; `now`: with what comes. Without: a snapshot first.")
                    .pattern(Some(streams::SINCE)),
                Type::String,
            )
            .into(),
        ),
    ]
}

/// One subscription in the body of `POST /v1/stream`.
pub(super) fn subscription() -> Object {
    let mut members: Vec<Named> = vec![("type?", one_of("What this is.", ["subscribe"]).into())];
    members.extend(subscription_members());
    closed(object("One subscription.", members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_schema_is_there() {
        fn walk(value: &Value, all: &Value) {
            match value {
                Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
                    Some(target) if name == "$ref" => {
                        assert!(all.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                    }
                    _ => walk(value, all),
                }),
                Value::Array(values) => values.iter().for_each(|value| walk(value, all)),
                _ => {}
            }
        }
        let schema = messages();
        walk(&schema, &schema);
        assert_eq!(schema["oneOf"].as_array().unwrap().len(), SENT.len());
        assert!(schema["$defs"]["Snapshot"]["properties"]["rows"].is_object());
        assert!(schema["$defs"]["Conflict"]["properties"]["current"]["oneOf"].is_array());
        assert!(schema["$defs"]["ConnectionProblem"]["properties"]["sub"].is_object());
    }
}
