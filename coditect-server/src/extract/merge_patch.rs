//! JSON Merge Patch (RFC 7396) of arbitrary documents and of records with known members.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::http::problem::Problem;

/// A member of a merge patch, for fields with `#[serde(default)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PatchField<T> {
    /// Missing: the member is unchanged.
    #[default]
    Absent,
    /// `null`: the member is removed.
    Null,
    /// The new value.
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for PatchField<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Option::deserialize(deserializer)?;
        Ok(given.map_or(Self::Null, Self::Value))
    }
}

/// The schema of an optional, nullable member.
impl<T: JsonSchema> JsonSchema for PatchField<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Option<T>>()
    }
}

impl<T> PatchField<T> {
    /// Checks or converts the new value.
    pub(crate) fn check<U>(
        self,
        check: impl FnOnce(T) -> Result<U, Problem>,
    ) -> Result<PatchField<U>, Problem> {
        Ok(match self {
            Self::Absent => PatchField::Absent,
            Self::Null => PatchField::Null,
            Self::Value(value) => PatchField::Value(check(value)?),
        })
    }

    /// Fails if the patch removes the member `name`, which is required.
    pub(crate) fn required(self, name: &str) -> Result<Self, Problem> {
        match self {
            Self::Null => {
                Err(Problem::invalid_field("VALIDATION_FAILED", name, "cannot be removed"))
            }
            other => Ok(other),
        }
    }
}

impl<T: Clone> PatchField<T> {
    /// Applies the patch to an optional member.
    pub(crate) fn change(&self, member: &mut Option<T>) {
        match self {
            Self::Absent => {}
            Self::Null => *member = None,
            Self::Value(value) => *member = Some(value.clone()),
        }
    }

    /// Applies the patch to a [required](Self::required) member.
    pub(crate) fn change_required(&self, member: &mut T) {
        if let Self::Value(value) = self {
            member.clone_from(value);
        }
    }
}

impl PatchField<String> {
    /// Applies the patch to a text that is empty if missing.
    pub(crate) fn change_or_clear(&self, text: &mut String) {
        match self {
            Self::Absent => {}
            Self::Null => text.clear(),
            Self::Value(value) => text.clone_from(value),
        }
    }
}

impl PatchField<Map<String, Value>> {
    /// Merges the patch into an object.
    pub(crate) fn merge_into(&self, object: &mut Value) {
        match self {
            Self::Absent => {}
            Self::Null => *object = Value::Object(Map::new()),
            Self::Value(patch) => merge(as_object(object), patch),
        }
    }
}

/// Applies `patch` to `target`: removes members that are `null`, merges objects, replaces all else.
pub(crate) fn apply(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => merge(as_object(target), patch),
        other => target.clone_from(other),
    }
}

/// Applies `patch` to `target`, both objects.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            apply(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Returns `value` as an object, after replacing any other value with an empty one.
fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("replaced by an object above"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn member_is_kept_removed_or_changed() {
        #[derive(Deserialize)]
        struct Patch {
            #[serde(default)]
            name: PatchField<String>,
        }
        let read = |patch| serde_json::from_value::<Patch>(patch).unwrap().name;
        let mut name = Some("old".to_owned());
        read(json!({})).change(&mut name);
        assert_eq!(name.as_deref(), Some("old"));
        read(json!({"name": "new"})).change(&mut name);
        assert_eq!(name.as_deref(), Some("new"));
        read(json!({"name": null})).change(&mut name);
        assert_eq!(name, None);
        assert!(read(json!({"name": null})).required("name").is_err());
        assert!(serde_json::from_value::<Patch>(json!({"name": 7})).is_err());
    }

    #[test]
    fn examples_of_the_rfc_hold() {
        for (mut original, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            apply(&mut original, &patch);
            assert_eq!(original, result, "{patch}");
        }
    }
}
