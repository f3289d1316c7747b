//! Typed records, indexes and transactions on FoundationDB, or on an embedded engine with the
//! same semantics.
//!
//! ```text
//!   archive      export and import: a store, or a tenant, as one stream of bytes
//!   check        every row compared with all that should be true of it
//!   inspect      keys and records for people to read
//!   model        the product's records: structs, where they lie, what they are found by
//!   repository   create, get, update, delete, find, scan; append; pages and cursors
//!   entity       what a record is, what a log is; indexes; bytes and their versions
//!   keyspace     names, tuples, ranges
//!   retry        retries, and unknown outcomes
//!   engine       ordered bytes, strictly serializable
//!   filesystem   durable names of files beside a store
//! ```
//!
//! Each knows those below it only, except that scopes know a tenant's id. A program opens a
//! [`Store`], and works in [`Transaction`]s:
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
//! store.run(|tx| async move { tx.create(user).await }).await?;
//!
//! // The address is taken, whoever asks.
//! let again = &User { id: UserId::new(), tenant_id: TenantId::new(), ..ada.clone() };
//! let refused = store.run(|tx| async move { tx.create(again).await }).await.unwrap_err();
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
//! # From here on
//!
//! | to … | read |
//! |---|---|
//! | declare a record of one's own, with what it is found by | [`entity`], [`indexes!`] |
//! | know what a transaction promises, and what runs again | [`Store::run`], [`retry`] |
//! | change what a client has read before | [`Transaction::update_at`], [`Revision`] |
//! | read many, page by page | [`Transaction::scan`], [`Transaction::list`], [`Scan::page`] |
//! | append in the order of commits | [`entity::log`], [`Transaction::append`] |
//! | work for one tenant, and touch no other | [`Transaction::tenant`] |
//! | count, and keep within a limit | [`repository::quota`] |
//! | keep bytes of any length | [`repository::blob`], [`BlobUpload`], [`BlobReader`], [`model::File::put`] |
//! | hear of a change | [`Transaction::watch`] |
//! | delete with all that hangs on it | [`Transaction::delete_session`], [`Store::complete`] |
//! | have records end by themselves | [`entity::Expiring`], [`Store::sweep`] |
//! | add an index to records that are there | [`Store::build`], and [`Store::verify`] to compare |
//! | change a record's fields | [`Entity::VERSION`], [`Entity::upgrade`] |
//! | see what it costs, and how it fares | [`telemetry`], [`engine::Statistics`] |
//! | do what the records cannot say | [`Transaction::engine`], [`engine`] |
//!
//! The `examples/` folder of the repository has most of these as programs.

#![cfg_attr(not(feature = "fdb"), forbid(unsafe_code))]

#[cfg(not(unix))]
compile_error!(
    "Coditect runs on Unix (Linux, macOS) only: the store needs file locks, positional writes, and folders that \
     can be synced. Windows is not supported; use WSL or a container there"
);

pub mod archive;
mod batch;
pub mod check;
mod clock;
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
pub mod repository;
pub mod retry;
mod store;
pub mod telemetry;

#[cfg(feature = "schema")]
#[doc(hidden)]
pub use schemars;

pub use batch::{BatchLimit, BatchSize};
pub use clock::{Clock, ManualClock};
pub use entity::Entity;
pub use error::{Error, ErrorKind, Result, RunError};
pub use repository::{
    Appended, Blob, BlobReader, BlobUpload, Counter, Cursor, LogScan, Logged, Page, Reservation,
    Revision, Scan, Stored, Swept, TenantTransaction, Transaction,
};
pub use store::{Store, StoreOptions};
