//! `#[derive(KeyPart)]`: structs of key parts, and enums of names.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{
    Attribute, Data, DataEnum, DataStruct, DeriveInput, Error, Ident, Index, LitStr, Member, Path,
    Result, parse_quote,
};

use crate::attributes::Mistakes;

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let mut store: Path = parse_quote!(::coditect_store);
    for attribute in keys(&input.attrs) {
        mistakes.check(attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                store = meta.value()?.parse()?;
                return Ok(());
            }
            Err(meta.error("unknown attribute: a type has crate"))
        }));
    }
    if !input.generics.params.is_empty() {
        let message = "a generic type cannot be a part of a key: its layout is persisted";
        mistakes.add(Error::new_spanned(&input.generics, message));
    }
    let body = match &input.data {
        Data::Struct(data) => of_struct(data, &store),
        Data::Enum(data) => of_enum(&input.ident, data, &store, &mut mistakes),
        Data::Union(data) => {
            mistakes.at(data.union_token.span, "a union cannot be a part of a key");
            TokenStream::new()
        }
    };
    if let Some(error) = mistakes.into_error() {
        return error.into_compile_error();
    }
    let name = &input.ident;
    quote! {
        #[automatically_derived]
        impl #store::keyspace::KeyPart for #name {
            #body
        }
    }
}

fn keys(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("key"))
}

/// The fields in sequence.
fn of_struct(data: &DataStruct, store: &Path) -> TokenStream {
    let part = quote!(#store::keyspace::KeyPart);
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let members: Vec<Member> = data
        .fields
        .iter()
        .enumerate()
        .map(|(at, field)| match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(at)),
        })
        .collect();
    quote! {
        const ELEMENTS: usize = 0 #(+ <#types as #part>::ELEMENTS)*;
        const IS_NULLABLE: bool = false #(|| <#types as #part>::IS_NULLABLE)*;

        fn element_types() -> ::std::vec::Vec<::std::string::String> {
            let parts: ::std::vec::Vec<::std::vec::Vec<::std::string::String>> =
                ::std::vec![#(<#types as #part>::element_types()),*];
            parts.concat()
        }

        fn pack(&self, key: &mut ::std::vec::Vec<u8>) {
            #(#part::pack(&self.#members, key);)*
        }

        fn unpack(rest: &mut &[u8]) -> #store::Result<Self> {
            ::core::result::Result::Ok(Self {
                #(#members: <#types as #part>::unpack(rest)?,)*
            })
        }
    }
}

/// The persisted name of a variant, as a string.
fn of_enum(name: &Ident, data: &DataEnum, store: &Path, mistakes: &mut Mistakes) -> TokenStream {
    let (mut variants, mut names): (Vec<&Ident>, Vec<LitStr>) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        if !variant.fields.is_empty() {
            let message = "a variant with fields cannot be a part of a key";
            mistakes.add(Error::new_spanned(&variant.fields, message));
            continue;
        }
        let Some(persisted) = mistakes.check(persisted_name(&variant.attrs, &variant.ident)) else {
            continue;
        };
        if names.iter().any(|other| other.value() == persisted.value()) {
            mistakes.at(persisted.span(), "another variant has this name");
        }
        variants.push(&variant.ident);
        names.push(persisted);
    }
    if data.variants.is_empty() {
        mistakes.at(name.span(), "an enum in a key has at least one variant");
    }
    let unknown = format!("a key has no {name} of this name");
    quote! {
        const ELEMENTS: usize = 1;

        fn element_types() -> ::std::vec::Vec<::std::string::String> {
            <::std::string::String as #store::keyspace::KeyPart>::element_types()
        }

        fn pack(&self, key: &mut ::std::vec::Vec<u8>) {
            let name: &str = match self { #(Self::#variants => #names,)* };
            #store::keyspace::pack_str(name, key);
        }

        fn unpack(rest: &mut &[u8]) -> #store::Result<Self> {
            let name = <::std::string::String as #store::keyspace::KeyPart>::unpack(rest)?;
            match name.as_str() {
                #(#names => ::core::result::Result::Ok(Self::#variants),)*
                _ => ::core::result::Result::Err(#store::keyspace::unknown_name(#unknown)),
            }
        }
    }
}

fn persisted_name(attributes: &[Attribute], variant: &Ident) -> Result<LitStr> {
    let mut name = None;
    for attribute in keys(attributes) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = Some(meta.value()?.parse::<LitStr>()?);
                return Ok(());
            }
            Err(meta.error("unknown attribute: a variant has name"))
        })?;
    }
    name.ok_or_else(|| {
        let suggested = snake_case(&variant.to_string());
        let message = format!("a variant has a persisted name: #[key(name = \"{suggested}\")]");
        Error::new_spanned(variant.to_token_stream(), message)
    })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Returns an identifier for a label.
pub(crate) fn label_ident(label: &LitStr) -> Result<Ident> {
    let text = label.value();
    syn::parse_str::<Ident>(&text)
        .map(|_| Ident::new(&text, Span::call_site()))
        .map_err(|_| Error::new(label.span(), "a label is an identifier, such as `author`"))
}
