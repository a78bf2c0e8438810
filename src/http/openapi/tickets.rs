//! Who asks: how a request shows it, and tickets for those that cannot.
//!
//! Must not know: any other route. Invariant: whatever takes a token says so, and how it answers one that is not accepted.

use super::super::credentials::COOKIE_NAME;
use super::words::{JSON, answer, header, object, operation, oversized, passing, problem, text, whole};
use utoipa::openapi::PathItem;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::ComponentsBuilder;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};

const NONE: [&str; 0] = [];

/// How a token is shown.
pub(super) fn schemes(components: ComponentsBuilder) -> ComponentsBuilder {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    let bearer =
        bearer.description(Some("A token: HS256, HS384, HS512, RS256, PS256, ES256, ES384 or EdDSA, with `exp`."));
    let about = "The same token. Only of pages of this origin or an allowed one; `HttpOnly`, `Secure`, `SameSite=Lax`.";
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description(COOKIE_NAME, about));
    let ticket = ApiKey::Query(ApiKeyValue::with_description("ticket", "Of `POST /v1/tickets`, once."));
    components
        .security_scheme("bearer", SecurityScheme::Http(bearer.build()))
        .security_scheme("cookie", SecurityScheme::ApiKey(cookie))
        .security_scheme("ticket", SecurityScheme::ApiKey(ticket))
}

/// Takes a token, and needs none.
pub(super) fn asking(operation: OperationBuilder) -> OperationBuilder {
    operation
        .security(SecurityRequirement::default())
        .security(SecurityRequirement::new("bearer", NONE))
        .security(SecurityRequirement::new("cookie", NONE))
        .response("401", unauthorized())
}

/// The same with a ticket.
pub(super) fn asking_with_ticket(operation: OperationBuilder) -> OperationBuilder {
    asking(operation).security(SecurityRequirement::new("ticket", NONE))
}

fn unauthorized() -> Response {
    let challenge = "`Bearer error=\"invalid_token\"` for a token that is not accepted, `Bearer` where one is needed and there is none.";
    ResponseBuilder::from(problem(&["unauthorized"])).header("WWW-Authenticate", header(challenge)).build()
}

/// `/v1/tickets`.
pub(in super::super) fn tickets() -> PathItem {
    let about = "For an `EventSource` or a `WebSocket` of a browser, which send no header: a ticket is shown once, to any gateway, as \
        `?ticket=` of `/v1/stream`, `/v1/changes` or `/v1/ws`, and stands for the token it was given for.";
    let members =
        [("ticket", text("Opaque.").into()), ("expires_in", whole("Seconds it is good.").minimum(Some(1)).into())];
    let given = answer("A ticket.", JSON, object("A ticket.", members)).header("Cache-Control", header("`no-store`."));
    let post = operation("ticket", "tokens", "Get a ticket", about)
        .security(SecurityRequirement::new("bearer", NONE))
        .response("200", given.build())
        .response("400", problem(&["malformed-request"]))
        .response("401", unauthorized())
        .response("403", problem(&["origin-not-allowed"]))
        .response("406", problem(&["not-acceptable"]))
        .response("429", passing(&["too-many-tickets"]))
        .response("503", passing(&["unavailable", "not-ready"]));
    let mut item = PathItem::default();
    item.post = Some(oversized(post).build());
    item
}
