//! Arbitrary JSON in a record.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny},
    ser::Error as _,
};

use crate::{Error, ErrorKind};

/// A JSON document in a record, opaque to the store. Encoded as its text, since bincode cannot
/// encode values of unknown structure; in JSON it is itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct Json(pub serde_json::Value);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            serializer.serialize_str(&self.0.to_string())
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            serde_json::Value::deserialize(deserializer).map(Self)
        } else {
            let text = String::deserialize(deserializer)?;
            serde_json::from_str(&text).map(Self).map_err(D::Error::custom)
        }
    }
}

/// The text of a JSON document in a record, encoded as [`Json`]. Decoding checks the syntax without
/// building a tree, so it takes no more memory than the text.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the text.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not JSON, which decoding has excluded.
    pub fn to_value(&self) -> crate::Result<serde_json::Value> {
        serde_json::from_str(&self.0).map_err(|cause| {
            Error::new(ErrorKind::Corrupt, "cannot parse a JSON document").with_source(cause)
        })
    }
}

impl From<&serde_json::Value> for JsonText {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }
}

impl std::fmt::Debug for JsonText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.to_value().map_err(S::Error::custom)?.serialize(serializer)
        } else {
            serializer.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return serde_json::Value::deserialize(deserializer).map(|value| Self::from(&value));
        }
        let text = String::deserialize(deserializer)?;
        serde_json::from_str::<IgnoredAny>(&text).map_err(D::Error::custom)?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn numbers_survive_repeated_round_trips() {
        for text in ["8".repeat(56), "0.1".into(), "2.2250738585072014e-308".into(), "1e23".into()]
        {
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value, json!(text.parse::<f64>().unwrap()));
            for _ in 0..3 {
                let again: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
                assert_eq!(value, again, "{text}");
                value = again;
            }
        }
    }
}
