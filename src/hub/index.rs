//! Which shapes a change may concern, without asking each.
//!
//! A shape whose filter says `column = value` can hold a row only while the row has that value, so it is found by the values
//! of the old and the new image. The rest are asked one by one.
//!
//! Must not know: rings, subscribers. Invariant: what is not found would have said "nothing": both images probe; equality is
//! that of [`crate::filter`], which refuses what is not equality of canonical texts; an image that cannot be read finds
//! everything.

use super::Shape;
use super::shape::SpecKey;
use crate::change::{Net, Table};
use crate::filter::{Image, index_key};
use std::collections::HashMap;
use std::sync::Arc;

/// The shapes of one table.
#[derive(Clone, Default)]
pub(super) struct Index {
    /// By column, then by value. Few columns: each is looked up in each image.
    columns: HashMap<String, HashMap<String, Vec<Arc<Shape>>>>,
    /// Those without an equality.
    rest: HashMap<SpecKey, Arc<Shape>>,
}

/// A shape and the changes that may concern it, by their place in the batch; none for all of them.
pub(super) type Found = (Arc<Shape>, Option<Vec<usize>>);

/// The column by which a shape is found, and the value. A key column if there is one: of those each value has few rows.
fn place(shape: &Shape) -> Option<(&str, &str)> {
    let table = &shape.spec.table;
    let mut equalities = shape.spec.filter.equalities().filter(|(column, _)| table.column(column).is_some());
    let first = equalities.next()?;
    let is_key = |(column, _): &(&str, &str)| table.key.iter().any(|key| key == column);
    Some(if is_key(&first) { first } else { equalities.find(is_key).unwrap_or(first) })
}

impl Index {
    pub(super) fn add(&mut self, shape: &Arc<Shape>) {
        match place(shape) {
            Some((column, value)) => {
                let values = self.columns.entry(column.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(shape.clone());
            }
            None => _ = self.rest.insert(shape.spec.key(), shape.clone()),
        }
    }

    pub(super) fn remove(&mut self, shape: &Arc<Shape>) {
        let Some((column, value)) = place(shape) else {
            if let Some(found) = self.rest.remove(&shape.spec.key())
                && !Arc::ptr_eq(&found, shape)
            {
                self.rest.insert(shape.spec.key(), found);
            }
            return;
        };
        let Some(values) = self.columns.get_mut(column) else { return };
        if let Some(shapes) = values.get_mut(value) {
            shapes.retain(|other| !Arc::ptr_eq(other, shape));
            if shapes.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.columns.remove(column);
        }
    }

    /// No shape at all.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.rest.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Shape>> {
        self.rest.values().chain(self.columns.values().flat_map(HashMap::values).flatten())
    }

    /// The shapes that changes of `table` may concern.
    pub(super) fn find(&self, table: &Table, nets: &[Net]) -> Vec<Found> {
        let mut found: Vec<Found> = self.rest.values().map(|shape| (shape.clone(), None)).collect();
        if self.columns.is_empty() {
            return found;
        }
        let mut hits: HashMap<*const Shape, (Arc<Shape>, Vec<usize>)> = HashMap::new();
        for (at, net) in nets.iter().enumerate() {
            for json in [&net.before, &net.after].into_iter().flatten() {
                let Some(shapes) = self.probe(table, json) else {
                    return self.all().map(|shape| (shape.clone(), None)).collect();
                };
                for shape in shapes {
                    let (_, places) = hits.entry(Arc::as_ptr(shape)).or_insert_with(|| (shape.clone(), Vec::new()));
                    // both images of a change find the same shape when the value stays
                    if places.last() != Some(&at) {
                        places.push(at);
                    }
                }
            }
        }
        found.extend(hits.into_values().map(|(shape, places)| (shape, Some(places))));
        found
    }

    /// The shapes with a value that the image has; none when it is not an image of this table.
    fn probe(&self, table: &Table, json: &[u8]) -> Option<Vec<&Arc<Shape>>> {
        let image = Image::parse(json).ok()?;
        let mut shapes = Vec::new();
        for (name, values) in &self.columns {
            let raw = image.get(name)?;
            if raw == "null" {
                // equal to nothing
                continue;
            }
            let value = index_key(table.column(name)?, raw)?;
            shapes.extend(values.get(&*value).into_iter().flatten());
        }
        Some(shapes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Collation, Column, Key, Mark};
    use crate::filter::Filter;
    use crate::hub::Spec;
    use crate::permit::Grant;
    use crate::wire::Projection;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn table() -> Arc<Table> {
        let column = |(name, type_oid, type_sql, collation): (&str, u32, &str, Collation)| Column {
            name: name.to_owned(),
            type_oid,
            type_sql: type_sql.to_owned(),
            is_enum: false,
            collation,
        };
        let none = Collation::None;
        let columns = [
            ("id", 20, "pg_catalog.int8", none),
            ("price", 1700, "pg_catalog.numeric", none),
            ("f8", 701, "pg_catalog.float8", none),
            ("name", 25, "pg_catalog.text", Collation::Deterministic),
            ("pad", 1042, "pg_catalog.bpchar", Collation::C),
            ("odd", 25, "pg_catalog.text", Collation::Nondeterministic),
            ("at", 1184, "pg_catalog.timestamptz", none),
        ];
        Arc::new(Table {
            relid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: columns.map(column).into(),
            key: vec!["id".to_owned()],
            key_sql: String::new(),
            row_sql: String::new(),
            public: true,
            ttl: Duration::ZERO,
            stale: Duration::ZERO,
            snapshot_every: Duration::ZERO,
            rules: Vec::new(),
            broken: None,
            fingerprint: "1".to_owned(),
        })
    }

    fn shape(table: &Arc<Table>, pairs: &[(&str, &str)]) -> Arc<Shape> {
        let filter = Filter::parse(pairs.iter().copied(), table).unwrap();
        let projection = Projection::parse(None, false, table).unwrap();
        let (mark, grant) = (Mark::new(0, true), Grant::operator());
        Arc::new(Shape::new(Spec { table: table.clone(), filter, projection, mark, grant }, 0, 1 << 20))
    }

    /// Filters with one value in several spellings, beside others that no value finds.
    const FILTERS: &[&[(&str, &str)]] = &[
        &[("id", "eq.1")],
        &[("id", "eq.2"), ("name", "eq.a")],
        &[("price", "eq.1")],
        &[("price", "eq.1.00"), ("id", "gt.0")],
        &[("price", "eq.10e-1"), ("name", "eq.a")],
        &[("f8", "eq.0")],
        &[("f8", "eq.-0")],
        &[("f8", "eq.1e3")],
        &[("f8", "eq.NaN")],
        &[("name", "eq.a")],
        &[("name", "eq.1")],
        &[("name", "eq.A")],
        &[("name", "eq.")],
        &[("pad", "eq.a")],
        &[("pad", "eq.a  ")],
        &[("at", "eq.2026-11-21T20:00:00Z")],
        &[("at", "eq.2026-11-21T21:00:00+01:00")],
        &[("name", "neq.a")],
        &[("name", "is.null")],
        &[("or", "(id.eq.1,name.eq.a)")],
        &[("id", "in.(1,2)")],
        &[("odd", "is.null")],
        &[],
    ];

    fn image() -> impl Strategy<Value = Bytes> {
        let one = |values: &'static [&'static str]| prop::sample::select(values);
        let columns = (
            one(&["1", "2", "3"]),
            one(&["null", "1", "1.0", "1.00", "2.5"]),
            one(&["null", "0", "-0", "1000", "1e3", "\"NaN\""]),
            one(&["null", "\"a\"", "\"A\"", "\"1\"", "\"\"", "\"\\u0061\""]),
            one(&["null", "\"a\"", "\"a   \"", "\"b\""]),
            one(&["null", "\"x\""]),
            one(&["null", "\"2026-11-21T20:00:00+00:00\"", "\"2026-11-21T21:00:00+01:00\""]),
        );
        columns.prop_map(|(id, price, f8, name, pad, odd, at)| {
            Bytes::from(format!(
                r#"{{"id":{id},"price":{price},"f8":{f8},"name":{name},"pad":{pad},"odd":{odd},"at":{at}}}"#
            ))
        })
    }

    fn net() -> impl Strategy<Value = Net> {
        (prop::option::of(image()), prop::option::of(image())).prop_map(|(before, after)| Net {
            key: Key::from_log("1", false),
            version: 1,
            before,
            after,
        })
    }

    fn told(shape: &Shape, nets: &[Net], places: Option<&[usize]>) -> String {
        let rows = match places {
            Some(places) => shape.spec.select(places.iter().map(|at| &nets[*at])),
            None => shape.spec.select(nets),
        };
        format!("{rows:?}")
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_all_would_have_said(nets in prop::collection::vec(net(), 1..8)) {
            let table = table();
            let shapes: Vec<Arc<Shape>> = FILTERS.iter().map(|pairs| shape(&table, pairs)).collect();
            let mut index = Index::default();
            shapes.iter().for_each(|shape| index.add(shape));
            let found = index.find(&table, &nets);
            let mut seen = BTreeSet::new();
            for (shape, places) in &found {
                prop_assert!(seen.insert(Arc::as_ptr(shape)), "found twice");
                prop_assert_eq!(told(shape, &nets, places.as_deref()), told(shape, &nets, None));
            }
            for shape in shapes.iter().filter(|shape| !seen.contains(&Arc::as_ptr(shape))) {
                prop_assert_eq!(told(shape, &nets, None), "Ok([])", "not found: {}", shape.spec.filter.canonical());
            }
            for shape in &shapes {
                index.remove(shape);
            }
            prop_assert!(index.is_empty());
        }
    }

    #[test]
    fn an_image_of_another_table_finds_all() {
        let table = table();
        let mut index = Index::default();
        for pairs in [&[("id", "eq.1")][..], &[("name", "eq.a")], &[]] {
            index.add(&shape(&table, pairs));
        }
        let net = |json: &'static str| Net {
            key: Key::from_log("1", false),
            version: 1,
            before: None,
            after: Some(Bytes::from_static(json.as_bytes())),
        };
        let found = |json| index.find(&table, &[net(json)]).len();
        assert_eq!(found(r#"{"id":7,"name":"b"}"#), 1);
        assert_eq!(found(r#"{"id":1,"name":"a"}"#), 3);
        for odd in [r#"{"id":7}"#, r#"{"id":"x","name":"b"}"#, "[]", "{"] {
            assert_eq!(found(odd), 3, "{odd}");
        }
    }
}
