//! A store is opened only with the declarations that it was written with.

use coditect_store::{
    Entity, ErrorKind, Result, Store,
    engine::Database,
    entity::{EventStream, Multi},
    indexes,
    keyspace::{Global, Subspace},
    model::TenantId,
    stream_indexes,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares an entity and a stream, always with the same names and labels, with the given types.
macro_rules! declared {
    ($(
        $module:ident: $scope:ident, $space:ident, $key:ty, $value:ty, $stream:ty, $word:ty;
    )*) => {$(
        mod $module {
            use super::*;

            #[derive(Serialize, Deserialize)]
            pub(super) struct Item(TenantId, $key, $value);

            impl Entity for Item {
                type Scope = $scope;
                type Key = $key;
                const SPACE: Subspace<$scope> = Subspace::$space("items").keyed(&["key"]);
                const VERSION: u8 = 1;

                fn scope(&self) -> $scope {
                    declared!(@ $scope self.0)
                }

                fn key(&self) -> $key {
                    self.1.clone()
                }
            }

            indexes! { Item =>
                /// By value.
                BY_VALUE ("items_by_value", value): Multi<$value> = |item| Some(item.2.clone());
            }

            #[derive(Serialize, Deserialize)]
            pub(super) struct Line(TenantId, $stream, $word);

            impl EventStream for Line {
                type Scope = $scope;
                type Stream = $stream;
                const SPACE: Subspace<$scope> = Subspace::$space("lines").keyed(&["stream"]);
                const VERSION: u8 = 1;

                fn scope(&self) -> $scope {
                    declared!(@ $scope self.0)
                }

                fn stream(&self) -> $stream {
                    self.1.clone()
                }
            }

            stream_indexes! { Line =>
                /// By word.
                BY_WORD ("lines_by_word", word): Multi<$word> = |line| Some(line.2.clone());
            }

            pub(super) async fn open(database: &Database) -> Result<Store> {
                Store::options().schema(coditect_store::model::schema()).entity::<Item>().stream::<Line>().open(database.clone()).await
            }
        }
    )*};
    (@ TenantId $tenant:expr) => { $tenant };
    (@ Global $tenant:expr) => { Global };
}

declared! {
    first: TenantId, tenant, u64, String, Uuid, String;
    other_scope: Global, global, u64, String, Uuid, String;
    other_key: TenantId, tenant, String, String, Uuid, String;
    other_value: TenantId, tenant, u64, u64, Uuid, String;
    longer_value: TenantId, tenant, u64, [u8; 16], Uuid, String;
    other_stream: TenantId, tenant, u64, String, i64, String;
    other_word: TenantId, tenant, u64, String, Uuid, Vec<u8>;
}

/// An id is stored as its UUID, which may replace it.
mod renamed {
    use coditect_store::model::UserId;

    use super::*;

    declared! { types: TenantId, tenant, u64, String, UserId, String; }
    pub(super) async fn open(database: &Database) -> Result<Store> {
        types::open(database).await
    }
}

#[tokio::test]
async fn declaration_with_other_types_is_refused_by_its_name() {
    let database = Database::temporary().unwrap();
    first::open(&database).await.unwrap();
    let refused = [
        (other_scope::open(&database).await, "items", "items", "global"),
        (other_key::open(&database).await, "items", "key:u64", "key:string"),
        (other_value::open(&database).await, "items_by_value", "value:string", "value:u64"),
        (longer_value::open(&database).await, "items_by_value", "value:string", "bytes[16]"),
        (other_stream::open(&database).await, "lines", "stream:uuid", "stream:i64"),
        (other_word::open(&database).await, "lines_by_word", "word:string", "word:bytes"),
    ];
    for (outcome, name, stored, declared) in refused {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch(name));
        let text = error.to_string();
        assert!(text.contains(stored) && text.contains(declared), "{text}");
    }
    renamed::open(&database).await.unwrap();
    first::open(&database).await.unwrap();
}

/// A record with one more field, and one with one less, with the same version.
mod changed {
    use super::*;

    macro_rules! versions {
        ($($module:ident: $version:literal $(, $field:ident)*;)*) => {$(
            pub(super) mod $module {
                use super::*;

                #[derive(Debug, Serialize, Deserialize)]
                pub(crate) struct Note {
                    pub(crate) id: u64,
                    $(pub(crate) $field: String,)*
                }

                impl Entity for Note {
                    type Scope = Global;
                    type Key = u64;
                    const SPACE: Subspace<Global> = Subspace::global("changed_notes");
                    const VERSION: u8 = $version;

                    fn scope(&self) -> Global {
                        Global
                    }

                    fn key(&self) -> u64 {
                        self.id
                    }

                    fn upgrade(older: coditect_store::entity::Older<'_>) -> Result<Self> {
                        older.read()
                    }
                }

                indexes! { Note => }
            }
        )*};
    }

    versions! {
        one: 1, title;
        more: 1, title, body;
        fewer: 1;
        badly_upgraded: 2, title, body;
    }
}

#[tokio::test]
async fn record_with_changed_fields_is_rejected_with_a_hint() {
    use changed::{badly_upgraded, fewer, more, one};

    let database = Database::temporary().unwrap();
    let store = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<one::Note>()
        .open(database.clone())
        .await
        .unwrap();
    let note = one::Note { id: 7, title: "title".into() };
    store
        .run(|tx| async {
            let (tx, note) = (tx, &note);
            tx.insert(note).await
        })
        .await
        .unwrap();

    macro_rules! refused {
        ($type:ty) => {{
            let store = Store::options()
                .schema(coditect_store::model::schema())
                .entity::<$type>()
                .open(database.clone())
                .await
                .unwrap();
            let error = store.begin().get::<$type>(Global, 7).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            error.to_string()
        }};
    }
    for text in [refused!(more::Note), refused!(fewer::Note)] {
        for part in ["changed_notes", "version 1", "Note", "raise its VERSION", "`upgrade`"] {
            assert!(text.contains(part), "{text:?} has {part:?}");
        }
    }
    let text = refused!(badly_upgraded::Note);
    for part in ["changed_notes", "version 1", "Note", "`upgrade` must read version 1"] {
        assert!(text.contains(part), "{text:?} has {part:?}");
    }
}
