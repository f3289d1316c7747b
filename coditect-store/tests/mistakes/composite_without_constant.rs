use coditect_store::{Entity, model::TenantId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Entity)]
#[entity(subspace = "notes", version = 1)]
#[index(multi, name = "notes_by_both", on(title, number))]
struct Note {
    #[entity(scope)]
    tenant: TenantId,
    #[entity(key)]
    number: u64,
    title: String,
}

fn main() {}
