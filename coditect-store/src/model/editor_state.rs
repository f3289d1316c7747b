//! The state of an editor, with the same structure in JSON and in records.

use serde::{Deserialize, Serialize};

use super::{ActiveFiles, Json};

/// The tabs of an editor. Fields missing in JSON are as in [`Default`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EditorState {
    /// Tabs, in display order.
    pub tabs: Vec<Tab>,
    /// Index of the active tab, from 0.
    #[cfg_attr(feature = "schema", schemars(range(max = 4_294_967_295_u32)))]
    pub active_tab: Option<u32>,
    /// Layout of the client, opaque to the server.
    pub layout: Json,
}

/// An open file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tab {
    /// Path of the file.
    pub path: String,
    /// Cursor position.
    #[serde(default)]
    pub cursor: TextPosition,
    /// Selections.
    #[serde(default)]
    pub selections: Vec<Selection>,
    /// Whether the tab is pinned.
    #[serde(default)]
    pub pinned: bool,
    /// Further view state (folds, scroll positions), opaque to the server.
    #[serde(default)]
    pub view_state: Json,
}

/// A position in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TextPosition {
    /// Line, as counted by the client.
    #[cfg_attr(feature = "schema", schemars(range(max = 4_294_967_295_u32)))]
    pub line: u32,
    /// Column, as counted by the client.
    #[cfg_attr(feature = "schema", schemars(range(max = 4_294_967_295_u32)))]
    pub column: u32,
}

/// A selected range of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Position at which the selection started.
    pub anchor: TextPosition,
    /// Position of the cursor, before or after the anchor.
    pub active: TextPosition,
}

impl EditorState {
    /// Returns the paths of the tabs, in order.
    pub fn active_files(&self) -> ActiveFiles {
        ActiveFiles(self.tabs.iter().map(|tab| tab.path.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_has_the_clients_structure() {
        let sent = json!({
            "tabs": [{
                "path": "src/main.rs",
                "cursor": {"line": 120, "column": 6},
                "selections": [
                    {"anchor": {"line": 1, "column": 2}, "active": {"line": 0, "column": 0}},
                ],
                "pinned": false,
                "view_state": null,
            }],
            "active_tab": 0,
            "layout": null,
        });
        let state: EditorState = serde_json::from_value(sent.clone()).unwrap();
        assert_eq!(serde_json::to_value(&state).unwrap(), sent);
        assert_eq!(state.active_files(), ActiveFiles(vec!["src/main.rs".into()]));
    }

    #[test]
    fn missing_fields_are_empty() {
        let state: EditorState = serde_json::from_value(json!({"tabs": [{"path": "a"}]})).unwrap();
        assert_eq!(state.tabs[0].cursor, TextPosition { line: 0, column: 0 });
        assert_eq!(state.active_tab, None);
        assert_eq!(state.layout, Json(serde_json::Value::Null));
        let empty: EditorState = serde_json::from_value(json!({})).unwrap();
        assert_eq!(empty, EditorState::default());
    }
}
