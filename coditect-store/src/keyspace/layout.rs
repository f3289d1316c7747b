//! The keyspace table: one row for each kind of key, generated from the declarations.

use std::fmt;

use super::ScopeKind;

/// The layout of one kind of key, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLayout {
    /// Whether the keys belong to tenants.
    pub scope_kind: ScopeKind,
    /// Name of the subspace or index.
    pub name: &'static str,
    /// Labels of the elements after the name.
    pub elements: Vec<&'static str>,
    /// Type of the value.
    pub value: String,
    /// Description.
    pub note: String,
}

/// Label of the tenant id.
pub(crate) const TENANT: &str = "T";

impl fmt::Display for KeyLayout {
    /// Formats the key as a tuple: `(T, "users", user)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        if self.scope_kind == ScopeKind::Tenant {
            write!(f, "{TENANT}, ")?;
        }
        write!(f, "{:?}", self.name)?;
        for element in &self.elements {
            write!(f, ", {element}")?;
        }
        f.write_str(")")
    }
}

/// Formats `layouts` as a Markdown table, in the given order.
pub fn table(layouts: impl IntoIterator<Item = KeyLayout>) -> String {
    let header = ["| key | value | |\n|---|---|---|\n".to_owned()];
    let row = |layout: KeyLayout| format!("| `{layout}` | {} | {} |\n", layout.value, layout.note);
    header.into_iter().chain(layouts.into_iter().map(row)).collect()
}
