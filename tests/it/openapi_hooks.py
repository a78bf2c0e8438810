"""Bodies that the tables of tests/it/openapi.rs take.

The document cannot know anybody's columns, so what Schemathesis makes of it is refused, nearly always. Every second
write is given a body, a key and conditions that fit; what is answered then is held against the document like the rest.
"""

import itertools

import schemathesis

COUNT = itertools.count()

KINDS = {
    "n": "12345678901234567890.5",
    "f": "NaN",
    "at": "2026-11-22T01:02:03.456789+01:00",
    "b": "\\x00ff",
    "j": {"a": {"b": [1, None]}},
    "a": [1, None],
    "u": "6f1c1d8e-6c1b-4a0e-9d5e-2f6f0d3d9a77",
    "d": "infinity",
}


def insert(case, n):
    case.path_parameters = {"table": "picks"}
    # every fifth meets another with the same values
    case.body = {"who": f"w{n % 5 and n}", "score": 1 + n % 2, "how": "fine", "more": {"n": n}}
    if n % 7 == 0:
        case.body = {"who": "x", "points": 10}
    if n % 3 == 0:
        # repeated by a later request
        case.headers["Idempotency-Key"] = f"insert-{n // 6 % 4}"


def update(case, n):
    case.path_parameters, case.body = ({"table": "seats", "key": "x,2"}, {"taken_by": f"t{n}"})
    if n % 3 == 0:
        case.path_parameters, case.body = ({"table": "picks", "key": "1"}, {"more": {"a": {"n": n}}})
        case.headers["If-Match"] = "*" if n % 2 else '"2"'


def replace(case, n):
    case.path_parameters, case.body = ({"table": "kinds", "key": str(n % 20)}, KINDS)
    if n % 3 == 0:
        case.headers["If-None-Match"] = "*"


def delete(case, n):
    case.path_parameters = {"table": "kinds", "key": str(n % 20)}


def batch(case, n):
    kind = f"{1000 + n}"
    case.body = {
        "ops": [
            {"op": "insert", "table": "kinds", "row": {"id": int(kind), "n": n}},
            {"op": "update", "table": "kinds", "key": kind, "set": {"f": 1.5}},
            {"op": "replace", "table": "kinds", "key": kind, "row": KINDS},
            {"op": "delete", "table": "seats", "key": "nobody,1"} if n % 3 == 0 else
            {"op": "delete", "table": "kinds", "key": kind},
        ]
    }


FITTING = {"insert": insert, "update": update, "replace": replace, "delete": delete, "batch": batch}


@schemathesis.hook
def before_call(_context, case, **_kwargs):
    name = case.operation.definition.raw.get("operationId")
    fit = FITTING.get(name)
    # OpenAPI cannot say that 201 has a body or, when the client wants none, has not
    if name in ("insert", "replace"):
        case.headers.pop("Prefer", None)
    # the methods that an address does not have are tried with the operation that it has
    if fit is None or case.method != case.operation.method.upper() or (n := next(COUNT)) % 2:
        return
    headers = {"Prefer": f"return={'minimal' if n % 4 else 'representation'}"} if n % 3 else {}
    headers = {} if name in ("insert", "replace") else headers
    case.headers = {**headers, "Content-Type": "application/json"}
    case.media_type = "application/json"
    case.query = case.cookies = {}
    if fit is delete:
        del case.headers["Content-Type"]
    fit(case, n // 2)
