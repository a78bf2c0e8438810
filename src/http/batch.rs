//! `POST /v1/batch`: several writes, all or none.
//!
//! Must not know: SQL. Invariant: what is not understood in an operation refuses the batch.

use super::target::{based_on, columns, row_key, table};
use super::wishes::Return;
use super::write::{applied, batch_row, begin, respond};
use super::{App, Problem, auth, body};
use crate::hub::Tables;
use crate::pg::write::{Answer, Claim, Expected, Operation, Order, Outcome, Render, Verb, Written};
use crate::session::Access;
use crate::wire::strict;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Operations of one batch: their rows stay locked until the last is done.
pub(super) const MAX_OPERATIONS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    ops: Vec<Box<RawValue>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Op {
    Insert,
    Update,
    Replace,
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpIn {
    op: Op,
    table: String,
    key: Option<String>,
    version: Option<Box<RawValue>>,
    set: Option<Box<RawValue>>,
    row: Option<Box<RawValue>>,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Replace => "replace",
            Op::Delete => "delete",
        }
    }

    fn verb(self) -> Verb {
        match self {
            Op::Insert => Verb::Insert,
            Op::Update => Verb::Update,
            Op::Replace => Verb::Replace,
            Op::Delete => Verb::Delete,
        }
    }
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(400, "malformed-request", detail)
}

/// `POST /v1/batch`.
///
/// # Errors
/// Bad input; the problem of the operation that failed.
pub(super) async fn batch(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    let access = auth::access(&request, &app).await?;
    let wishes = begin(&request, &app).await?;
    if wishes.if_match.is_some() || wishes.absent {
        return Err(malformed("a batch takes no conditions: each operation has its `version`"));
    }
    body::check_type(&request, &["application/json"])?;
    let body = body::read(&request, payload).await?;
    // checked to its depth; what follows only takes it apart
    strict::object(&body)?;
    let Batch { ops } = serde_json::from_slice(&body)
        .map_err(|e| malformed(format!("a batch is `{{\"ops\": [{{\"op\", \"table\", ..}}]}}`: {e}")))?;
    let plan = plan(&ops, &app.hub.tables(), &access, wishes.prefer)?;
    let outcome = perform(&app, &access, plan, wishes.claim(&request, &body, &access)).await?;
    Ok(respond(outcome, |mut body, position| {
        body.insert_str(body.len() - 1, &format!(",\"position\":{}", serde_json::json!(position)));
        body
    }))
}

/// What a batch comes to.
pub(super) struct Plan {
    operations: Vec<Operation>,
    render: Render,
}

/// Reads the operations, whose text was checked.
///
/// # Errors
/// What is wrong with the first that is.
pub(super) fn plan(
    ops: &[Box<RawValue>],
    tables: &Tables,
    access: &Access,
    prefer: Option<Return>,
) -> Result<Plan, Problem> {
    if ops.is_empty() || ops.len() > MAX_OPERATIONS {
        return Err(malformed(format!("{} operations; a batch has 1 to {MAX_OPERATIONS}", ops.len())));
    }
    let (mut names, mut operations) = (Vec::new(), Vec::new());
    let whole = prefer != Some(Return::Minimal);
    for (i, raw) in ops.iter().enumerate() {
        let (op, operation) = operation(raw.get(), tables, access, whole).map_err(|problem| problem.of_operation(i))?;
        names.push((op.name(), operation.table.clone()));
        operations.push(operation);
    }
    let render = Box::new(move |rows: &[Written]| {
        let rows = names.iter().zip(rows).map(|((op, table), row)| batch_row(op, table, row, whole && *op != "delete"));
        let mut headers = Vec::new();
        applied(prefer, &mut headers);
        let body = format!("{{\"rows\":[{}]}}", rows.collect::<Vec<_>>().join(","));
        Answer { status: 200, headers, body: Some(body) }
    });
    Ok(Plan { operations, render })
}

/// Carries it out.
///
/// # Errors
/// The problem of the operation that failed; 401 when authority ended meanwhile.
pub(super) async fn perform(app: &App, access: &Access, plan: Plan, claim: Option<Claim>) -> Result<Outcome, Problem> {
    auth::still(access, app)?;
    let order = Order { claim, operations: plan.operations, render: plan.render };
    app.writer.perform(order).await.map_err(|failure| match failure.operation {
        Some(index) => Problem::from(failure).of_operation(index),
        None => failure.into(),
    })
}

fn operation(text: &str, tables: &Tables, access: &Access, whole: bool) -> Result<(Op, Operation), Problem> {
    let input: OpIn = serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
    let (op, verb) = (input.op, input.op.verb());
    let (table, permit) = table(tables, &input.table, access)?;
    let key = match (input.key, op) {
        (None, Op::Insert) => None,
        (Some(_), Op::Insert) => return Err(malformed("`insert` has its key in `row`, not in `key`")),
        (Some(key), _) => Some(row_key(&key, &table)?),
        (None, _) => return Err(malformed(format!("`{}` needs `key`", op.name()))),
    };
    let version = input.version.as_deref().map(version).transpose()?;
    let expected = match (op, version) {
        (Op::Insert, Some(_)) => return Err(malformed("`insert` takes no `version`")),
        (Op::Insert, None) => Expected::Any,
        (_, version) => based_on(version.map(|v| Expected::OneOf(vec![v])), &permit, "`\"version\": <version>`")?,
    };
    let (wanted, members) = match op {
        Op::Insert | Op::Replace => ("`row` and no `set`", input.row.filter(|_| input.set.is_none())),
        Op::Update => ("`set` and no `row`", input.set.filter(|_| input.row.is_none())),
        Op::Delete if input.row.is_none() && input.set.is_none() => {
            return Ok((op, Operation { verb, table, permit, key, expected, values: Vec::new(), answered: false }));
        }
        Op::Delete => ("neither `row` nor `set`", None),
    };
    let members = members.ok_or_else(|| malformed(format!("`{}` has {wanted}", op.name())))?;
    let values = columns(strict::members(members.get())?, permit.seen(&table), verb, &expected)?;
    Ok((op, Operation { verb, table, permit, key, expected, values, answered: whole }))
}

fn version(raw: &RawValue) -> Result<i64, Problem> {
    raw.get().parse().ok().filter(|v: &i64| *v >= 0).ok_or_else(|| malformed("`version` is a number, as it was read"))
}
