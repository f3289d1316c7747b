use coditect_store::{Entity, model::TenantId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Entity)]
#[entity(subspace = "notes", version = 1)]
struct Note<T> {
    #[entity(scope)]
    tenant: TenantId,
    #[entity(key)]
    number: T,
}

fn main() {}
