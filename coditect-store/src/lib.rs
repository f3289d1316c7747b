//! Typed records, indexes and transactions on FoundationDB, or on an embedded engine with the same
//! semantics.
//!
//! ```text
//!   archive      export and import of a store, or of a tenant
//!   check        consistency checks of a whole store
//!   inspect      keys and records for display
//!   model        the product's records, their cascades and quotas
//!   records      insert, get, update, delete, find, scan; event streams; blobs; index builds
//!   entity       declarations of records, event streams and indexes; encoding and versions
//!   keyspace     subspaces, tuples, ranges
//!   retry        retries, and unknown outcomes
//!   engine       ordered bytes, strictly serializable
//!   filesystem   durable names of files beside a store
//! ```
//!
//! Imports point downward. A program opens a [`Store`], and works in [`Transaction`]s:
//!
//! ```
//! use coditect_store::{
//!     ErrorKind, Result, Store,
//!     engine::Database,
//!     keyspace::Global,
//!     model::{TenantId, User, UserId, UserStatus},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let store = Store::open(Database::memory()?).await?;
//! let now = chrono::DateTime::UNIX_EPOCH;
//! let ada = User {
//!     id: UserId::new(),
//!     tenant_id: TenantId::new(),
//!     email: "Ada@example.org".into(),
//!     email_normalized: "ada@example.org".into(),
//!     password_hash: "$argon2id$…".into(),
//!     first_name: Some("Ada".into()),
//!     last_name: None,
//!     status: UserStatus::Enabled,
//!     login_epoch: 0,
//!     created_at: now,
//!     updated_at: now,
//! };
//! let user = &ada;
//! store.run(|tx| async move { tx.insert(user).await }).await?;
//!
//! // E-mail addresses are unique.
//! let again = &User { id: UserId::new(), tenant_id: TenantId::new(), ..ada.clone() };
//! let refused = store.run(|tx| async move { tx.insert(again).await }).await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::UniqueViolation("users_by_email"));
//!
//! let tx = store.begin();
//! let found = tx.find(&User::BY_EMAIL, Global, "ada@example.org".to_owned()).await?;
//! assert_eq!(found, Some(ada.clone()));
//! assert_eq!(tx.get::<User>(ada.tenant_id, ada.id).await?, Some(ada.clone()));
//! assert_eq!(tx.get::<User>(TenantId::new(), ada.id).await?, None, "not another tenant's");
//! # Ok(()) }
//! ```
//!
//! # Guide
//!
//! | task | see |
//! |---|---|
//! | declare a record and its indexes | [`entity`], [`derive@Entity`], [`indexes!`] |
//! | use a type in keys and indexes | [`keyspace::KeyPart`] |
//! | run a transaction, and know its guarantees and retries | [`transact!`], [`Store::run`], [`retry`] |
//! | change a record that a client has read earlier | [`Transaction::update_at`], [`Revision`] |
//! | read many records, page by page | [`Transaction::scan`], [`Transaction::list`], [`Scan::page`] |
//! | append events in commit order | [`entity::stream`], [`Transaction::append`] |
//! | count, and enforce a limit | [`records::quota`] |
//! | store byte strings of any length | [`records::blob`], [`BlobUpload`], [`BlobReader`], [`model::File::put`] |
//! | be notified of a change | [`Transaction::watch`] |
//! | delete a record with its dependents | [`Transaction::delete_session`], [`Store::resume_deletion`] |
//! | let records expire | [`entity::Expiring`], [`Store::purge`] |
//! | add an index to existing records | [`Store::build`]; [`Store::verify`] compares an index |
//! | change the fields of a record | [`Entity::VERSION`], [`Entity::upgrade`] |
//! | measure costs and health | [`telemetry`], [`engine::Statistics`] |
//! | read and write keys that are not records | [`Transaction::engine`], [`engine`] |
//!
//! The `examples/` directory of the repository has most of these as programs.

#![cfg_attr(not(feature = "fdb"), forbid(unsafe_code))]

#[cfg(not(unix))]
compile_error!(
    "Coditect runs on Unix (Linux, macOS) only: the store needs file locks, positional writes, \
     and folders that can be synced. Windows is not supported; use WSL or a container there"
);

pub mod archive;
mod batch;
pub mod check;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod entity;
mod error;
pub mod filesystem;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod keyspace;
pub mod model;
pub mod records;
pub mod retry;
mod store;
pub mod telemetry;

#[cfg(feature = "schema")]
#[doc(hidden)]
pub use schemars;

pub use batch::{BatchLimit, BatchSize};
pub use clock::{Clock, ManualClock};
pub use coditect_store_derive::Entity;
pub use entity::Entity;
pub use error::{Error, ErrorKind, Result, RunError};
pub use model::PurgeReport;
pub use records::{
    AppendHandle, Blob, BlobReader, BlobUpload, Counter, Cursor, Event, Page, Reservation,
    Revision, Scan, Transaction, Versioned,
};
pub use store::{Store, StoreOptions};
