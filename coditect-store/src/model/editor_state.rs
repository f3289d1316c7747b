//! What an editor shows, in the JSON that its client sends and in a record alike.

use serde::{Deserialize, Serialize};

use super::{ActiveFiles, Json};

/// An editor's tabs. What JSON leaves out is as in [`Default`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EditorState {
    /// The tabs, in their order.
    pub tabs: Vec<Tab>,
    /// Which of them is in front, counted from 0.
    #[cfg_attr(feature = "schema", schemars(range(max = 4_294_967_295_u32)))]
    pub active_tab: Option<u32>,
    /// How the client has laid them out, which only it knows.
    pub layout: Json,
}

/// A file that is open in an editor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tab {
    /// The file's path.
    pub path: String,
    /// Where the cursor is.
    #[serde(default)]
    pub cursor: TextPosition,
    /// What is selected.
    #[serde(default)]
    pub selections: Vec<Selection>,
    /// Whether it stays when others are closed.
    #[serde(default)]
    pub pinned: bool,
    /// What else the client wants to know again (folds, scroll positions), which only it knows.
    #[serde(default)]
    pub view_state: Json,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TextPosition {
    /// The line, as the client counts them.
    #[cfg_attr(feature = "schema", schemars(range(max = 4_294_967_295_u32)))]
    pub line: u32,
    /// The column, as the client counts them.
    #[cfg_attr(feature = "schema", schemars(range(max = 4_294_967_295_u32)))]
    pub column: u32,
}

/// A piece of a text that is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Where selecting began.
    pub anchor: TextPosition,
    /// Where the cursor went from there; it may be before the anchor.
    pub active: TextPosition,
}

impl EditorState {
    /// The paths of its tabs, in their order.
    pub fn active_files(&self) -> ActiveFiles {
        ActiveFiles(self.tabs.iter().map(|tab| tab.path.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_json_is_what_clients_send() {
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
    fn what_is_left_out_is_empty() {
        let state: EditorState = serde_json::from_value(json!({"tabs": [{"path": "a"}]})).unwrap();
        assert_eq!(state.tabs[0].cursor, TextPosition { line: 0, column: 0 });
        assert_eq!(state.active_tab, None);
        assert_eq!(state.layout, Json(serde_json::Value::Null));
        let empty: EditorState = serde_json::from_value(json!({})).unwrap();
        assert_eq!(empty, EditorState::default());
    }
}
