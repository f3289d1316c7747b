//! The derive macros of `coditect-store`, which re-exports and documents them.
//!
//! A derived `Entity` expands to the explicit form: an `impl Entity`, and what `indexes!` expands
//! to. A mistake in an attribute is one error at the attribute or field that has it; the expansion
//! then contains a placeholder implementation, so that no other errors follow.

mod attributes;
mod entity;
mod key_part;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `coditect_store::Entity`; see there.
#[proc_macro_derive(Entity, attributes(entity, index))]
pub fn derive_entity(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    entity::derive(&input).into()
}

/// Derives `coditect_store::keyspace::KeyPart`; see there.
#[proc_macro_derive(KeyPart, attributes(key))]
pub fn derive_key_part(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    key_part::derive(&input).into()
}
