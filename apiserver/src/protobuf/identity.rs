//! Nothing is lost on the way: every field that a kind may have goes to protobuf and comes back.

use proptest::{prelude::*, strategy::BoxedStrategy, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use super::{
    Encoder, decode, encode,
    table::{Field, Kind, Many, Message, table},
};
use crate::{
    builtin,
    schema::{Schema, Shape},
};

/// Messages that contain themselves end here.
const DEEPEST: usize = 9;

/// What the schema has and the table has not, or has otherwise.
fn missing(schema: &Schema, message: &Message, path: &str, found: &mut Vec<String>) {
    let Shape::Object(object) = &schema.shape else { return };
    for (name, schema) in &object.properties {
        let path = format!("{path}.{name}");
        let outermost = !path[1..].contains('.');
        if ["apiVersion", "kind"].contains(&name.as_str()) && (outermost || path.contains(".volumeClaimTemplates.")) {
            continue; // the envelope says it, or goes without saying
        }
        let Some(place) = message.place(name) else {
            found.push(path);
            continue;
        };
        let (schema, many) = match (&schema.shape, place.field.many) {
            (Shape::List(items, _), Many::List) => (items.as_ref(), true),
            (Shape::Map(values), Many::Map) => (values.as_ref(), true),
            _ => (schema.as_ref(), place.field.many == Many::One),
        };
        if !many || !fits(schema, place.field.kind) {
            found.push(format!("{path} of another type: {:?}", schema.shape).chars().take(150).collect());
        } else if let Kind::Message(index) = place.field.kind {
            missing(schema, table().message(index), &path, found);
        }
    }
}

fn fits(schema: &Schema, kind: Kind) -> bool {
    match (&schema.shape, kind) {
        _ if schema.quantity => matches!(kind, Kind::Quantity),
        (Shape::String(format), Kind::Bytes) => format == "byte",
        (Shape::String(format), Kind::Time) => format == "date-time",
        (Shape::String(format), Kind::MicroTime) => format == "micro-time",
        (Shape::String(_), Kind::String | Kind::Duration)
        | (Shape::Integer(_), Kind::Int)
        | (Shape::Number, Kind::Double)
        | (Shape::Boolean, Kind::Bool)
        | (Shape::IntOrString, Kind::IntOrString)
        | (Shape::Object(_), Kind::Message(_) | Kind::Raw)
        | (Shape::List(..), Kind::Strings) => true,
        // The compiled schema ends where a type contains itself.
        (Shape::Any, Kind::Message(index)) => index == table().schema,
        (Shape::Any, Kind::Raw | Kind::OrArray | Kind::OrBool | Kind::OrStrings) => true,
        _ => false,
    }
}

#[test]
fn every_field_of_every_kind_has_a_place_in_its_message() {
    let mut found = Vec::new();
    for kind in builtin::kinds() {
        match table().kind(&kind.api_version(), &kind.kind) {
            Some(message) => missing(kind.schema(), message, "", &mut found),
            None => found.push(format!("{} {} has no message", kind.api_version(), kind.kind)),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Any value of a field, as the server stores it: what means nothing is not there.
fn any_value(field: Field, depth: usize) -> BoxedStrategy<Value> {
    match field.many {
        Many::One => any_one(field.kind, field.keeps_zero, depth),
        Many::List => prop::collection::vec(any_one(field.kind, true, depth), 1..3).prop_map(Value::from).boxed(),
        Many::Map => prop::collection::btree_map("[a-z/.é\"]{0,6}", any_one(field.kind, true, depth), 1..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
            .boxed(),
    }
}

fn any_one(kind: Kind, zero: bool, depth: usize) -> BoxedStrategy<Value> {
    let text = if zero { "[a-zé\"]{0,4}" } else { "[a-zé\"]{1,4}|[a-z]{130}" };
    match kind {
        Kind::String => text.prop_map(Value::from).boxed(),
        Kind::Bytes => prop::collection::vec(any::<u8>(), usize::from(!zero)..20)
            .prop_map(|bytes| base64::Engine::encode(&crate::schema::BASE64, bytes).into())
            .boxed(),
        Kind::Int => prop_oneof![any::<i64>(), -2..200_i64]
            .prop_filter("zero means nothing", move |n| zero || *n != 0)
            .prop_map(Value::from)
            .boxed(),
        Kind::Bool => any::<bool>().prop_map(move |truth| (truth || !zero).into()).boxed(),
        Kind::Double => prop_oneof![
            (1..9000_i64).prop_map(Value::from),
            (1..9000_i32).prop_map(|eighths| (f64::from(eighths) / 8.0 + 0.0625).into())
        ]
        .boxed(),
        Kind::Time => (-62_135_596_800..253_402_300_799_i64)
            .prop_map(|seconds| jiff::Timestamp::from_second(seconds).unwrap().to_string().into())
            .boxed(),
        Kind::MicroTime => (-62_135_596_800_000_000..253_402_300_799_000_000_i64)
            .prop_map(|micros| {
                let time = jiff::Timestamp::from_microsecond(micros).unwrap();
                time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
            })
            .boxed(),
        Kind::Duration => {
            (0..9_000_000_000_u64).prop_map(|seconds| onex_crds::duration::of_seconds(seconds).into()).boxed()
        }
        Kind::Quantity => prop_oneof![Just("0"), Just("500m"), Just("1.5Gi"), Just("-1")].prop_map(Value::from).boxed(),
        Kind::IntOrString => {
            prop_oneof![any::<i32>().prop_map(Value::from), "[a-zé\"]{0,4}".prop_map(Value::from)].boxed()
        }
        Kind::Raw => prop_oneof![
            any_json(),
            any_json().prop_map(|inner| json!({"apiVersion": "v1", "kind": "Thing", "é": inner}))
        ]
        .boxed(),
        Kind::Strings => prop::collection::vec("[a-zé\"]{0,4}", 0..3).prop_map(Value::from).boxed(),
        Kind::OrArray => {
            prop_oneof![any_schema(depth), prop::collection::vec(any_schema(depth), 2..4).prop_map(Value::from)].boxed()
        }
        Kind::OrBool => prop_oneof![any_schema(depth), any::<bool>().prop_map(Value::from)].boxed(),
        Kind::OrStrings => {
            prop_oneof![any_schema(depth), prop::collection::vec("[a-z]{0,4}", 1..3).prop_map(Value::from)].boxed()
        }
        Kind::Message(index) => any_message(table().message(index), depth),
    }
}

/// JSON that comes back as it was: whatever numbers are, they are numbers of JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zé\"]{0,4}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-zé\"]{0,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A schema of a definition, which contains itself.
fn any_schema(depth: usize) -> BoxedStrategy<Value> {
    any_message(table().message(table().schema), depth + 3)
}

fn any_message(message: &Message, depth: usize) -> BoxedStrategy<Value> {
    let ends = |field: &Field| !matches!(field.kind, Kind::Message(_) | Kind::OrArray | Kind::OrBool | Kind::OrStrings);
    let fields = message.places().filter(|(_, field)| depth < DEEPEST || ends(field));
    // The deeper, the fewer: an object of all that a Pod may have would be as large as the world.
    let chance = if depth < 2 { 0.8 } else { 1.0 / depth as f64 };
    let some = fields.map(|(name, field)| {
        let value = prop::option::weighted(chance, any_value(field, depth + 1));
        value.prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    });
    let some: Vec<_> = some.collect();
    some.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>())).boxed()
}

#[test]
fn an_object_of_any_kind_comes_back_as_it_went() {
    let config =
        ProptestConfig { cases: 16, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() };
    for (api_version, name) in table().kinds() {
        let encoder = Encoder::of(api_version, name).unwrap();
        let objects = any_message(table().kind(api_version, name).unwrap(), 0);
        let outcome = TestRunner::new(config.clone()).run(&objects, |mut object| {
            object["apiVersion"] = api_version.into();
            object["kind"] = name.into();
            let bytes = encode((api_version, name), encoder, object.to_string().as_bytes(), None).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap().object, object);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{api_version} {name}: {error}"));
    }
}
