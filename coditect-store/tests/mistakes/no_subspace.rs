use coditect_store::{Entity, model::TenantId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Entity)]
#[entity(version = 1)]
struct Note {
    #[entity(scope)]
    tenant: TenantId,
    #[entity(key)]
    number: u64,
    title: String,
}

fn main() {}
