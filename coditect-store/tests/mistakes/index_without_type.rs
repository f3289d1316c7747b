use coditect_store::{Entity, model::TenantId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Entity)]
#[entity(subspace = "notes", version = 1)]
struct Note {
    #[entity(scope)]
    tenant: TenantId,
    #[entity(key)]
    number: u64,
    #[index(name = "notes_by_title")]
    title: String,
}

fn main() {}
