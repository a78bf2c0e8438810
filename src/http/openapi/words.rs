//! The small words the document is written in: schemas, parameters, headers and problems in a line each.
//!
//! Must not know: any one route. Invariant: a problem names its codes, and each code its title, from the table that
//! answers are made from.

use super::super::problem;
use serde_json::Value;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, ParameterStyle};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    AllOfBuilder, ArrayBuilder, ArrayItems, Object, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{PathItem, Ref, RefOr, Required};

/// Any schema, or a reference to one.
pub(super) type AnySchema = RefOr<Schema>;

/// JSON.
pub(super) const JSON: &str = "application/json";

/// Forms.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Problem documents.
pub(super) const PROBLEM: &str = "application/problem+json";

/// One of the document's schemas.
pub(super) fn schema(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

/// Text.
pub(super) fn text(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about))
}

/// Text of one shape.
pub(super) fn pattern(about: &str, pattern: &str, example: &str) -> ObjectBuilder {
    text(about).pattern(Some(pattern)).examples([example])
}

/// One of a closed set of texts.
pub(super) fn one_of<'a>(about: &str, values: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    text(about).enum_values(Some(values))
}

/// A whole number.
pub(super) fn whole(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).description(Some(about))
}

/// True or false.
pub(super) fn flag(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(about))
}

/// The same, or null.
pub(super) fn nullable(object: ObjectBuilder, kind: Type) -> ObjectBuilder {
    object.schema_type(SchemaType::from_iter([kind, Type::Null]))
}

/// A list.
pub(super) fn list(about: &str, items: impl Into<AnySchema>) -> ArrayBuilder {
    ArrayBuilder::new().description(Some(about)).items(ArrayItems::RefOrSchema(Box::new(items.into())))
}

/// An object; a member whose name ends in `?` may be missing. Members that are not named may come with later versions.
pub(super) fn object<'a>(about: &str, members: impl IntoIterator<Item = (&'a str, AnySchema)>) -> Object {
    let about = Some(about).filter(|about| !about.is_empty());
    let mut object = ObjectBuilder::new().schema_type(Type::Object).description(about);
    for (name, schema) in members {
        object = match name.strip_suffix('?') {
            Some(name) => object.property(name, schema),
            None => object.property(name, schema).required(name),
        };
    }
    object.build()
}

/// The same for what clients send: a member that is not named is refused.
pub(super) fn closed(object: Object) -> Object {
    ObjectBuilder::from(object)
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
        .build()
}

/// A parameter of the query string.
pub(super) fn query(name: &str, schema: impl Into<AnySchema>) -> ParameterBuilder {
    parameter(ParameterIn::Query, name, schema).required(Required::False)
}

/// A part of the path.
pub(super) fn path(name: &str, schema: impl Into<AnySchema>) -> ParameterBuilder {
    parameter(ParameterIn::Path, name, schema).required(Required::True)
}

/// A header of the request.
pub(super) fn asked(name: &str, schema: impl Into<AnySchema>) -> ParameterBuilder {
    parameter(ParameterIn::Header, name, schema).required(Required::False)
}

fn parameter(place: ParameterIn, name: &str, schema: impl Into<AnySchema>) -> ParameterBuilder {
    let mut schema = schema.into();
    // the parameter says it
    let about = match &mut schema {
        RefOr::T(Schema::Object(object)) => object.description.take(),
        RefOr::T(Schema::Array(array)) => array.description.take(),
        _ => None,
    };
    ParameterBuilder::new().name(name).parameter_in(place).description(about).schema(Some(schema))
}

/// Pairs of the query string whose names the document cannot know: the table's columns.
pub(super) fn pairs(name: &str, about: &str) -> Parameter {
    let value = text("`operator.value`");
    let object =
        ObjectBuilder::new().schema_type(Type::Object).description(Some(about)).additional_properties(Some(value));
    query(name, object).style(Some(ParameterStyle::Form)).explode(Some(true)).build()
}

/// A header that every such answer has.
pub(super) fn header(about: &str) -> Header {
    // the builder knows no `required` for headers
    let required = Extensions::from_iter([("required", Value::Bool(true))]);
    HeaderBuilder::from(sometimes(about)).extensions(Some(required)).build()
}

/// A header that some have.
pub(super) fn sometimes(about: &str) -> Header {
    HeaderBuilder::from(Header::default()).description(Some(about)).build()
}

/// An answer with a body.
pub(super) fn answer(about: &str, media: &str, schema: impl Into<AnySchema>) -> ResponseBuilder {
    ResponseBuilder::new().description(about).content(media, Content::new(Some(schema.into())))
}

/// An answer that goes on, event by event.
pub(super) fn stream_of(about: &str, item: impl Into<AnySchema>) -> ResponseBuilder {
    let content = ContentBuilder::new().item_schema(Some(item.into()));
    ResponseBuilder::new().description(about).content("text/event-stream", content.build())
}

/// An answer without one.
pub(super) fn empty(about: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(about)
}

/// A problem document with one of these codes.
pub(super) fn problem(codes: &[&str]) -> Response {
    let mut codes = codes.to_vec();
    codes.sort_unstable();
    codes.dedup();
    let titles: Vec<String> = codes.iter().map(|code| format!("- `{code}`: {}", problem::title(code))).collect();
    let code = object("", [("code", one_of("One of these.", codes).into())]);
    let schema = AllOfBuilder::new().item(schema("Problem")).item(code);
    answer(&titles.join("\n"), PROBLEM, Schema::AllOf(schema.build()))
        .header_ref("X-Request-Id", Ref::new("#/components/headers/X-Request-Id"))
        .header_ref("Cache-Control", Ref::new("#/components/headers/No-Store"))
        .build()
}

/// The same with `Retry-After` on every one.
pub(super) fn passing(codes: &[&str]) -> Response {
    ResponseBuilder::from(problem(codes)).header("Retry-After", header("Seconds.")).build()
}

/// What any address answers to any request that is too long.
pub(super) fn oversized(operation: OperationBuilder) -> OperationBuilder {
    operation.response("414", problem(&["uri-too-long"])).response("431", problem(&["header-fields-too-large"]))
}

/// The same as HEAD: the headers without the body.
pub(super) fn head(get: &Operation) -> Operation {
    let mut head = get.clone();
    head.operation_id = get.operation_id.as_ref().map(|id| format!("{id}Head"));
    head.summary = get.summary.as_ref().map(|summary| format!("{summary}: headers only"));
    for response in head.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    }
    head
}

/// Begins an operation.
pub(super) fn operation(id: &str, tag: &str, summary: &str, about: &str) -> OperationBuilder {
    OperationBuilder::new().operation_id(Some(id)).tag(tag).summary(Some(summary)).description(Some(about))
}

/// GET, and HEAD with the same headers.
pub(super) fn get_and_head(get: Operation) -> PathItem {
    let mut item = PathItem::default();
    item.head = Some(head(&get));
    item.get = Some(get);
    item
}
