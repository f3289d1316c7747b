//! The keyspace for people to read: one row a kind of key, made from the declarations.

use std::fmt;

use super::Place;

/// How one kind of key looks, and what lies under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether it is within each tenant or over all.
    pub place: Place,
    /// The name of its space or index.
    pub name: &'static str,
    /// What the elements after the name are called.
    pub elements: Vec<&'static str>,
    /// What its value is.
    pub value: String,
    /// What there is to know about it.
    pub note: String,
}

/// What a tenant's id is called among elements.
pub(crate) const TENANT: &str = "T";

impl fmt::Display for Shape {
    /// The key as a tuple: `(T, "users", user)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        if self.place == Place::Tenant {
            write!(f, "{TENANT}, ")?;
        }
        write!(f, "{:?}", self.name)?;
        for element in &self.elements {
            write!(f, ", {element}")?;
        }
        f.write_str(")")
    }
}

/// A table of `shapes` in Markdown, in the order given.
pub fn table(shapes: impl IntoIterator<Item = Shape>) -> String {
    let header = ["| key | value | |\n|---|---|---|\n".to_owned()];
    let row = |shape: Shape| format!("| `{shape}` | {} | {} |\n", shape.value, shape.note);
    header.into_iter().chain(shapes.into_iter().map(row)).collect()
}
