//! Which entities a store holds, so that no two of them share a name.

use std::any::{TypeId, type_name};

use super::{Entity, Indexed, Log, log};
use crate::{
    Error, ErrorKind, Result,
    keyspace::{Place, Scope as _, Shape},
    model,
    repository::COUNTERS,
};

/// The entities that a [`Store`](crate::Store) holds: the product's, and those that were
/// [added](Self::with). A store refuses others, so what is declared here is all that it writes.
#[derive(Clone, Debug)]
pub struct Registry(Vec<Declaration>);

#[derive(Clone, Debug)]
struct Declaration {
    type_id: TypeId,
    type_name: &'static str,
    shapes: Vec<Shape>,
}

/// The space of what a store knows about itself.
pub(crate) const META: &str = "meta";

impl Default for Registry {
    fn default() -> Self {
        Self::product()
    }
}

impl Registry {
    /// The product's own entities.
    pub fn product() -> Self {
        Self(Vec::new())
            .with::<model::Tenant>()
            .with::<model::User>()
            .with::<model::AuthSession>()
            .with::<model::Session>()
            .with::<model::SessionState>()
            .with::<model::SessionMemory>()
            .with::<model::ClientState>()
            .with::<model::File>()
            .with::<model::Conversation>()
            .with_log::<model::Message>()
            .with::<model::Agent>()
            .with::<model::Setting>()
            .with_log::<model::AuditEntry>()
    }

    /// These and `E`; once, however often it is added.
    #[must_use]
    pub fn with<E: Entity>(self) -> Self {
        self.declare::<E>(shapes::<E>)
    }

    /// These and the log `L`; once, however often it is added.
    #[must_use]
    pub fn with_log<L: Log>(self) -> Self {
        self.declare::<L>(|| log::shapes::<L>(short_name::<L>()))
    }

    fn declare<T: 'static>(mut self, shapes: impl FnOnce() -> Vec<Shape>) -> Self {
        if !self.knows::<T>() {
            self.0.push(Declaration {
                type_id: TypeId::of::<T>(),
                type_name: type_name::<T>(),
                shapes: shapes(),
            });
        }
        self
    }

    /// How all keys look, entity by entity: its records, then its indexes.
    pub fn shapes(&self) -> Vec<Shape> {
        let records = self.0.iter().flat_map(|declaration| declaration.shapes.iter().cloned());
        records.chain([counters(), meta()]).collect()
    }

    fn knows<T: 'static>(&self) -> bool {
        self.0.iter().any(|declaration| declaration.type_id == TypeId::of::<T>())
    }

    /// Refuses an entity that was not added.
    pub(crate) fn require<E: Entity>(&self) -> Result<()> {
        self.require_type::<E>()
    }

    /// Refuses a log that was not added.
    pub(crate) fn require_log<L: Log>(&self) -> Result<()> {
        self.require_type::<L>()
    }

    fn require_type<T: 'static>(&self) -> Result<()> {
        if self.knows::<T>() {
            return Ok(());
        }
        let name = type_name::<T>();
        Err(Error::new(ErrorKind::Invalid, format!("{name} was not declared to the store")))
    }

    /// Refuses a name that is used twice.
    pub(crate) fn check(&self) -> Result<()> {
        let itself = "the store itself";
        let mut names = vec![(META, itself), (COUNTERS.name(), itself)];
        for declaration in &self.0 {
            for shape in &declaration.shapes {
                if let Some((name, other)) = names.iter().find(|(name, _)| *name == shape.name) {
                    let own = declaration.type_name;
                    let message = format!("the name {name:?} is used by {other} and by {own}");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                names.push((shape.name, declaration.type_name));
            }
        }
        Ok(())
    }
}

fn shapes<E: Entity>() -> Vec<Shape> {
    let record = Shape {
        place: E::Scope::PLACE,
        name: E::SPACE.name(),
        elements: E::SPACE.labels().to_vec(),
        value: short_name::<E>(),
        note: String::new(),
    };
    let indexes = <E as Indexed>::INDEXES.iter().map(|index| index.shape());
    [record].into_iter().chain(indexes).collect()
}

/// The name of a type without its module's.
fn short_name<T>() -> String {
    let name = type_name::<T>();
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

fn counters() -> Shape {
    Shape {
        place: Place::Tenant,
        name: COUNTERS.name(),
        elements: COUNTERS.labels().to_vec(),
        value: "i64".to_owned(),
        note: "changed by atomic additions; kept within limits by `repository/quota.rs`".to_owned(),
    }
}

fn meta() -> Shape {
    Shape {
        place: Place::Global,
        name: META,
        elements: vec!["\"format\""],
        value: "(name, version)".to_owned(),
        note: "what wrote the store, and in which layout".to_owned(),
    }
}
