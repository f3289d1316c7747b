//! The records of another service: every type of index, keys of every type.

use coditect_store::{
    Entity, Result, Store,
    engine::Database,
    entity::{
        Count, Covering, FanOut, GlobalCount, GlobalCovering, GlobalFanOut, GlobalMulti,
        GlobalUnique, Multi, Unique,
    },
    indexes,
    keyspace::{Global, KeyPart, Subspace},
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A task's number within its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TaskNumber(pub(crate) u64);

impl KeyPart for TaskNumber {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        u64::element_types()
    }

    fn pack(&self, key: &mut Vec<u8>) {
        self.0.pack(key);
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        u64::unpack(rest).map(Self)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) tenant: TenantId,
    pub(crate) number: TaskNumber,
    pub(crate) slug: String,
    pub(crate) owner: UserId,
    pub(crate) due: Option<i64>,
    pub(crate) ticket: Option<String>,
    pub(crate) day: i64,
    pub(crate) tags: Vec<String>,
}

impl Entity for Task {
    type Scope = TenantId;
    type Key = TaskNumber;
    const SPACE: Subspace<TenantId> = Subspace::tenant("planner_tasks").keyed(&["number"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant
    }

    fn key(&self) -> TaskNumber {
        self.number
    }
}

indexes! { Task =>
    /// Slugs are unique within a tenant.
    BY_SLUG ("planner_tasks_by_slug", slug): Unique<String> = |task| Some(task.slug.clone());
    /// Tasks of a user.
    BY_OWNER ("planner_tasks_by_owner", owner): Multi<UserId> = |task| Some(task.owner);
    /// Tasks with a due time, by owner and time.
    BY_DUE ("planner_tasks_by_due", owner, due): Multi<(UserId, i64)> =
        |task| task.due.map(|due| (task.owner, due));
    /// A ticket of the help desk belongs to one task, of any tenant.
    BY_TICKET ("planner_tasks_by_ticket", ticket): GlobalUnique<String> =
        |task| task.ticket.clone();
    /// All tenants' tasks by day.
    BY_DAY ("planner_tasks_by_day", day): GlobalMulti<i64> = |task| Some(task.day);
    /// Tasks of a user, with the fields of a list.
    SUMMARIES ("planner_task_summaries", owner): Covering<UserId, Summary> =
        |task| Some((task.owner, Summary::of(task)));
    /// All tenants' due tasks, with their owners.
    AGENDA ("planner_agenda", due): GlobalCovering<i64, UserId> =
        |task| task.due.map(|due| (due, task.owner));
    /// Tasks by tag.
    BY_TAG ("planner_tasks_by_tag", tag): FanOut<String> = |task| task.tags.clone();
    /// As BY_TAG, over all tenants.
    BY_TAG_OF_ALL ("planner_tasks_by_tag_of_all", tag): GlobalFanOut<String> =
        |task| task.tags.clone();
    /// The number of tasks of a user on a day.
    LOAD ("planner_load", owner, day): Count<(UserId, i64)> = |task| Some((task.owner, task.day));
    /// The number of tasks due at a time, over all tenants.
    DUE_COUNT ("planner_due_count", due): GlobalCount<i64> = |task| task.due;
}

/// The fields of a task in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) slug: String,
    pub(crate) due: Option<i64>,
}

impl Summary {
    pub(crate) fn of(task: &Task) -> Self {
        Self { slug: task.slug.clone(), due: task.due }
    }
}

/// A global record, with text as its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holiday {
    pub(crate) name: String,
    pub(crate) country: String,
}

impl Entity for Holiday {
    type Scope = Global;
    type Key = String;
    const SPACE: Subspace<Global> = Subspace::global("planner_holidays").keyed(&["name"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> String {
        self.name.clone()
    }
}

indexes! { Holiday =>
    /// By country.
    BY_COUNTRY ("planner_holidays_by_country", country): Multi<String> =
        |holiday| Some(holiday.country.clone());
}

pub(crate) fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(n))
}

pub(crate) fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

/// A task of `tenant(1)` and `user(1)` without values that others may need.
pub(crate) fn task(number: u64) -> Task {
    Task {
        tenant: tenant(1),
        number: TaskNumber(number),
        slug: format!("task-{number}"),
        owner: user(1),
        due: None,
        ticket: None,
        day: 0,
        tags: Vec::new(),
    }
}

/// An empty store in memory that declares the planner's records.
pub(crate) async fn store() -> Store {
    let options = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Task>()
        .entity::<Holiday>();
    options.open(Database::temporary().unwrap()).await.unwrap()
}

/// A store in memory that has `tasks`.
pub(crate) async fn store_with(tasks: &[Task]) -> Store {
    let store = store().await;
    let create = async |tx: coditect_store::Transaction| {
        for task in tasks {
            tx.insert(task).await?;
        }
        tx.commit().await
    };
    create(store.begin()).await.unwrap();
    store
}
