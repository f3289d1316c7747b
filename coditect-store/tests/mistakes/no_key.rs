use coditect_store::{Entity, model::TenantId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Entity)]
#[entity(subspace = "notes", version = 1)]
struct Note {
    #[entity(scope)]
    tenant: TenantId,
    title: String,
}

fn main() {}
