//! `#[derive(Entity)]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, Fields, GenericArgument, Ident, LitStr, Path, PathArguments,
    Type, Visibility, parse_quote, spanned::Spanned,
};

use crate::{
    attributes::{EntityAttributes, FieldAttributes, IndexAttributes, Kind, Mistakes},
    key_part::label_ident,
};

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let attributes = EntityAttributes::parse(&input.attrs, &mut mistakes);
    let store = attributes.store.clone().unwrap_or_else(|| parse_quote!(::coditect_store));
    let declared = Declaration::new(input, &attributes, &mut mistakes);
    let name = &input.ident;
    match (declared, mistakes.into_error()) {
        (Some(declared), None) => declared.expand(input, &attributes, &store),
        (_, mistakes) => {
            let errors = mistakes.map(Error::into_compile_error);
            if !input.generics.params.is_empty() {
                return quote!(#errors);
            }
            // Without an implementation each use of the type would be another error.
            quote! {
                #errors
                #[automatically_derived]
                impl #store::Entity for #name {
                    type Scope = #store::keyspace::Global;
                    type Key = ();
                    const SPACE: #store::keyspace::Subspace<#store::keyspace::Global> =
                        #store::keyspace::Subspace::global("invalid").keyed(&[]);
                    const VERSION: u8 = 1;
                    fn scope(&self) -> Self::Scope { #store::keyspace::Global }
                    fn key(&self) -> Self::Key {}
                }
                #[automatically_derived]
                impl #store::entity::Indexed for #name {
                    const INDEXES: &'static [&'static dyn #store::entity::IndexOf<Self>] = &[];
                    const NAMES: &'static [&'static str] = &[];
                }
            }
        }
    }
}

/// A valid declaration.
struct Declaration<'a> {
    scope: Option<&'a Field>,
    keys: Vec<&'a Field>,
    labels: Vec<LitStr>,
    secrets: Vec<String>,
    blobs: Vec<&'a Field>,
    indexes: Vec<DeclaredIndex<'a>>,
    subspace: &'a LitStr,
    version: u8,
}

struct DeclaredIndex<'a> {
    attributes: IndexAttributes,
    constant: Ident,
    fields: Vec<&'a Field>,
    included: Vec<&'a Field>,
    labels: Vec<Ident>,
}

impl<'a> Declaration<'a> {
    /// Returns the declaration of `input`. Each mistake is recorded once, where it is.
    fn new(
        input: &'a DeriveInput,
        attributes: &'a EntityAttributes,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let fields = fields_of(input, mistakes)?;
        let name = &input.ident;
        if let Some(subspace) = &attributes.subspace {
            if !is_name(&subspace.value()) {
                let message = "a subspace's name is lower-case letters, digits and `_`";
                mistakes.at(subspace.span(), message);
            }
        } else if !attributes.is_damaged {
            let message = "an entity has a persisted subspace: #[entity(subspace = \"…\")]";
            mistakes.at(name.span(), message);
        }
        let version = version(name, attributes, mistakes);
        let parsed: Vec<(&Field, FieldAttributes)> = fields
            .iter()
            .map(|field| (field, FieldAttributes::parse(&field.attrs, mistakes)))
            .collect();
        let scope = scope(name, attributes, &parsed, mistakes);
        let (keys, labels) = key(name, &parsed, mistakes);
        let secrets = parsed.iter().filter(|(_, field)| field.is_secret);
        let secrets = secrets.map(|(field, _)| serialized_name(field)).collect();
        let blobs = parsed.iter().filter(|(_, field)| field.is_blob);
        let blobs = blobs.map(|(field, _)| *field).collect();
        let indexes = indexes(input, fields, mistakes);
        Some(Self {
            scope,
            keys,
            labels,
            secrets,
            blobs,
            indexes,
            subspace: attributes.subspace.as_ref()?,
            version: version?,
        })
    }

    fn expand(
        &self,
        input: &DeriveInput,
        attributes: &EntityAttributes,
        store: &Path,
    ) -> TokenStream {
        let name = &input.ident;
        let keyspace = quote!(#store::keyspace);
        let (scope_type, scope) = match self.scope {
            Some(field) => {
                let (of, member) = (&field.ty, &field.ident);
                (quote!(#of), quote!(::core::clone::Clone::clone(&self.#member)))
            }
            None => (quote!(#keyspace::Global), quote!(#keyspace::Global)),
        };
        let kind = if self.scope.is_some() { quote!(tenant) } else { quote!(global) };
        let key_types: Vec<&Type> = self.keys.iter().map(|field| &field.ty).collect();
        let key_members: Vec<_> = self.keys.iter().map(|field| &field.ident).collect();
        let (key_type, key) = match (key_types.as_slice(), key_members.as_slice()) {
            ([of], [member]) => (quote!(#of), quote!(::core::clone::Clone::clone(&self.#member))),
            _ => (
                quote!((#(#key_types),*)),
                quote!((#(::core::clone::Clone::clone(&self.#key_members)),*)),
            ),
        };
        let (subspace, labels, version) = (self.subspace, &self.labels, self.version);
        let secrets = &self.secrets;
        let blobs = (!self.blobs.is_empty()).then(|| {
            let members = self.blobs.iter().map(|field| &field.ident);
            quote! {
                const BLOBS: ::core::option::Option<
                    fn(&Self) -> ::std::vec::Vec<#store::Blob>
                > = ::core::option::Option::Some(|record| {
                    let mut blobs = ::std::vec::Vec::new();
                    #(blobs.extend(::core::iter::IntoIterator::into_iter(
                        ::core::clone::Clone::clone(&record.#members)
                    ));)*
                    blobs
                });
            }
        });
        let upgrade = attributes.upgrade.as_ref().map(|upgrade| {
            quote! {
                fn upgrade(older: #store::entity::Older<'_>) -> #store::Result<Self> {
                    #upgrade(older)
                }
            }
        });
        let indexes = self.indexes.iter().map(|index| index.expand(&input.vis, store));
        let constants: Vec<_> = self.indexes.iter().map(|index| &index.constant).collect();
        let names = self.indexes.iter().map(|index| &index.attributes.name);
        // A failed check of the declaration as a whole is an error at the name of the subspace.
        let check = quote_spanned! {subspace.span()=>
            const _: () = #store::entity::check::<#name>();
        };
        quote! {
            #[automatically_derived]
            impl #store::Entity for #name {
                type Scope = #scope_type;
                type Key = #key_type;
                const SPACE: #keyspace::Subspace<#scope_type> =
                    #keyspace::Subspace::#kind(#subspace).keyed(&[#(#labels),*]);
                const VERSION: u8 = #version;
                const SECRETS: &'static [&'static str] = &[#(#secrets),*];
                #blobs

                fn scope(&self) -> Self::Scope {
                    #scope
                }

                fn key(&self) -> Self::Key {
                    #key
                }

                #upgrade
            }

            impl #name {
                #(#indexes)*
            }

            #[automatically_derived]
            impl #store::entity::Indexed for #name {
                const INDEXES: &'static [&'static dyn #store::entity::IndexOf<Self>] =
                    &[#(&Self::#constants),*];
                const NAMES: &'static [&'static str] = &[#(#names),*];
            }

            #check
        }
    }
}

fn fields_of<'a>(
    input: &'a DeriveInput,
    mistakes: &mut Mistakes,
) -> Option<&'a syn::punctuated::Punctuated<Field, syn::Token![,]>> {
    if !input.generics.params.is_empty() {
        let message = "a generic type cannot be an entity: its layout is persisted";
        mistakes.add(Error::new_spanned(&input.generics, message));
        return None;
    }
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => return Some(&fields.named),
            Fields::Unnamed(_) | Fields::Unit => {
                mistakes.at(input.ident.span(), "an entity is a struct with named fields");
            }
        },
        Data::Enum(_) | Data::Union(_) => {
            mistakes.at(input.ident.span(), "an entity is a struct with named fields");
        }
    }
    None
}

fn version(name: &Ident, attributes: &EntityAttributes, mistakes: &mut Mistakes) -> Option<u8> {
    let Some(literal) = &attributes.version else {
        if attributes.is_damaged {
            return None;
        }
        let message = "an entity has the version of its encoding: #[entity(version = 1)]";
        mistakes.at(name.span(), message);
        return None;
    };
    let version = literal.base10_parse::<u8>().ok().filter(|version| *version > 0);
    let Some(version) = version else {
        mistakes.at(literal.span(), "a version is between 1 and 255");
        return None;
    };
    if version > 1 && attributes.upgrade.is_none() {
        let message = "a version above 1 upgrades older records: #[entity(upgrade = function)], a \
                       function from `Older<'_>` to `Result<Self>`";
        mistakes.at(literal.span(), message);
    }
    Some(version)
}

fn scope<'a>(
    name: &Ident,
    attributes: &EntityAttributes,
    fields: &[(&'a Field, FieldAttributes)],
    mistakes: &mut Mistakes,
) -> Option<&'a Field> {
    let mut scopes = fields.iter().filter(|(_, field)| field.is_scope).map(|(field, _)| *field);
    let scope = scopes.next();
    for other in scopes {
        mistakes.at(other.span(), "another field is the scope");
    }
    match scope {
        Some(field) if attributes.is_global => {
            mistakes.at(field.span(), "a global entity has no scope field");
        }
        None if !attributes.is_global && !attributes.is_damaged => {
            let message = "an entity belongs to a tenant, by a field with #[entity(scope)], or to \
                           none: #[entity(global)]";
            mistakes.at(name.span(), message);
        }
        _ => {}
    }
    scope
}

fn key<'a>(
    name: &Ident,
    fields: &[(&'a Field, FieldAttributes)],
    mistakes: &mut Mistakes,
) -> (Vec<&'a Field>, Vec<LitStr>) {
    let (mut keys, mut labels) = (Vec::new(), Vec::new());
    for (field, attributes) in fields {
        let Some((_, given)) = &attributes.key else { continue };
        keys.push(*field);
        match &field.ident {
            Some(ident) if given.is_empty() => labels.push(label_of(ident)),
            _ => labels.extend(given.iter().cloned()),
        }
    }
    if keys.is_empty() {
        let message = "an entity has a key: one or more fields with #[entity(key)]";
        mistakes.at(name.span(), message);
    }
    if keys.len() > 4 {
        mistakes.at(name.span(), "a key has at most four fields");
    }
    (keys, labels)
}

/// Returns the indexes of the fields, in their order, and then the ones of the struct.
fn indexes<'a>(
    input: &'a DeriveInput,
    fields: &'a syn::punctuated::Punctuated<Field, syn::Token![,]>,
    mistakes: &mut Mistakes,
) -> Vec<DeclaredIndex<'a>> {
    let mut indexes = Vec::new();
    for field in fields {
        for attributes in IndexAttributes::parse(&field.attrs, mistakes) {
            if let Some(place) = attributes.on.first().map(Ident::span) {
                mistakes.at(place, "`on` belongs to an index of the struct");
            } else if let Some((function, _)) = &attributes.value {
                mistakes.at(function.span(), "`value` belongs to an index of the struct");
            } else {
                indexes.extend(declared_index(attributes, vec![field], fields, mistakes));
            }
        }
    }
    for attributes in IndexAttributes::parse(&input.attrs, mistakes) {
        if attributes.constant.is_none() {
            let message = "an index of the struct names its constant: #[index(…, constant = BY_…)]";
            mistakes.at(attributes.place, message);
            continue;
        }
        if attributes.on.is_empty() == attributes.value.is_none() {
            let message = "an index of the struct is `on(field, …)`, or has `value = function` and \
                           `type = Type`";
            mistakes.at(attributes.place, message);
            continue;
        }
        let on = attributes.on.clone();
        let on = on.iter().filter_map(|name| field_named(name, fields, mistakes)).collect();
        indexes.extend(declared_index(attributes, on, fields, mistakes));
    }
    let mut seen: Vec<(String, String)> = Vec::new();
    for index in &indexes {
        let (name, constant) = (index.attributes.name.value(), index.constant.to_string());
        if seen.iter().any(|(other, _)| *other == name) {
            mistakes.at(index.attributes.name.span(), "another index has this name");
        } else if seen.iter().any(|(_, other)| *other == constant) {
            let message =
                format!("another index has the constant {constant}: #[index(…, constant = …)]");
            mistakes.at(index.attributes.place, message);
        }
        seen.push((name, constant));
    }
    indexes
}

fn declared_index<'a>(
    attributes: IndexAttributes,
    on: Vec<&'a Field>,
    fields: &'a syn::punctuated::Punctuated<Field, syn::Token![,]>,
    mistakes: &mut Mistakes,
) -> Option<DeclaredIndex<'a>> {
    if !is_name(&attributes.name.value()) {
        let message = "an index's name is lower-case letters, digits and `_`";
        mistakes.at(attributes.name.span(), message);
        return None;
    }
    if matches!(attributes.kind, Kind::FanOut) && attributes.value.is_none() {
        if on.len() != 1 {
            let message = "fan_out is on one field, with several values";
            mistakes.at(attributes.place, message);
            return None;
        }
        if let Some(field) = on.iter().find(|field| argument(&field.ty).is_none()) {
            let message = "fan_out is on a field with several values, such as `Vec<String>`";
            mistakes.at(field.ty.span(), message);
            return None;
        }
    }
    let labels = if attributes.labels.is_empty() {
        let named = on.iter().filter_map(|field| field.ident.as_ref());
        named.map(|ident| Ident::new(&plain(ident), Span::call_site())).collect()
    } else {
        let labels = attributes.labels.iter();
        labels.filter_map(|label| mistakes.check(label_ident(label))).collect::<Vec<_>>()
    };
    if labels.is_empty() {
        let message = "an index with a function labels its values: #[index(…, label = \"…\")]";
        mistakes.at(attributes.place, message);
        return None;
    }
    let included = match &attributes.kind {
        Kind::Covering(names) => {
            names.iter().filter_map(|name| field_named(name, fields, mistakes)).collect()
        }
        _ => Vec::new(),
    };
    let constant = match (&attributes.constant, on.as_slice()) {
        (Some(constant), _) => constant.clone(),
        (None, [field]) => {
            let name = field.ident.as_ref().map(plain).unwrap_or_default();
            Ident::new(&format!("BY_{}", name.to_uppercase()), field.span())
        }
        (None, _) => return None,
    };
    Some(DeclaredIndex { attributes, constant, fields: on, included, labels })
}

fn field_named<'a>(
    name: &Ident,
    fields: &'a syn::punctuated::Punctuated<Field, syn::Token![,]>,
    mistakes: &mut Mistakes,
) -> Option<&'a Field> {
    let field = fields.iter().find(|field| field.ident.as_ref() == Some(name));
    if field.is_none() {
        mistakes.at(name.span(), format!("there is no field `{name}`"));
    }
    field
}

impl DeclaredIndex<'_> {
    /// Returns the constant of the index.
    fn expand(&self, visibility: &Visibility, store: &Path) -> TokenStream {
        let Self { attributes, constant, labels, .. } = self;
        let record = Ident::new("record", Span::mixed_site());
        let (value_type, value) = self.value(&record);
        let name = &attributes.name;
        let global = if attributes.is_global { "Global" } else { "" };
        let kind = match &attributes.kind {
            Kind::Unique => "Unique",
            Kind::Multi => "Multi",
            Kind::FanOut => "FanOut",
            Kind::Count => "Count",
            Kind::Covering(_) => "Covering",
        };
        let index_type = format_ident!("{global}{kind}");
        let (included_type, value) = match &attributes.kind {
            Kind::Covering(_) => {
                let types: Vec<_> = self.included.iter().map(|field| &field.ty).collect();
                let members: Vec<_> = self.included.iter().map(|field| &field.ident).collect();
                let (types, fields) = match (types.as_slice(), members.as_slice()) {
                    ([of], [member]) => {
                        (quote!(#of), quote!(::core::clone::Clone::clone(&#record.#member)))
                    }
                    _ => (
                        quote!((#(#types),*)),
                        quote!((#(::core::clone::Clone::clone(&#record.#members)),*)),
                    ),
                };
                let value = quote!((#value).map(|value| (value, #fields)));
                (quote!(, #types), value)
            }
            _ => (TokenStream::new(), value),
        };
        let index = quote!(#store::entity::Index);
        let kind = quote!(#store::entity::#index_type<#value_type #included_type>);
        let doc = format!("Index `{}`.", name.value());
        // A failed check of an index is an error at its name.
        quote_spanned! {name.span()=>
            #[doc = #doc]
            #visibility const #constant: #index<Self, #kind> =
                #index::<Self, #kind>::new(#name, &[#(stringify!(#labels)),*], |#record| #value)
                    .described(#doc);
        }
    }

    /// Returns the type of the indexed values, and the expression of a record's value or values.
    fn value(&self, record: &Ident) -> (TokenStream, TokenStream) {
        if let Some((function, of)) = &self.attributes.value {
            return (quote!(#of), quote!(#function(#record)));
        }
        if let ([field], Kind::FanOut) = (self.fields.as_slice(), &self.attributes.kind) {
            let (member, of) = (&field.ident, argument(&field.ty));
            return (quote!(#of), quote!(#record.#member.iter().cloned().collect()));
        }
        let mut types = Vec::new();
        let mut values = Vec::new();
        for field in &self.fields {
            let member = &field.ident;
            let value =
                quote_spanned!(field.ty.span()=> ::core::clone::Clone::clone(&#record.#member));
            let of = option(&field.ty);
            types.push(of.map_or_else(|| field.ty.to_token_stream(), ToTokens::to_token_stream));
            values.push((value, of.is_some()));
        }
        match (types.as_slice(), values.as_slice()) {
            ([of], [(value, true)]) => (of.clone(), value.clone()),
            ([of], [(value, false)]) => (of.clone(), quote!(::core::option::Option::Some(#value))),
            _ => {
                let values =
                    values.iter().map(
                        |(value, is_sparse)| {
                            if *is_sparse { quote!(#value?) } else { value.clone() }
                        },
                    );
                (quote!((#(#types),*)), quote!(::core::option::Option::Some((#(#values),*))))
            }
        }
    }
}

/// Returns whether `name` can be persisted as the name of a subspace or an index.
fn is_name(name: &str) -> bool {
    let is_part = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '_');
    !name.is_empty() && name.chars().all(is_part)
}

/// Returns `T` of an `Option<T>`.
fn option(of: &Type) -> Option<&Type> {
    let Type::Path(path) = of else { return None };
    let last = path.path.segments.last()?;
    if last.ident == "Option" { argument(of) } else { None }
}

/// Returns the last type argument of a path, such as `T` of a `Vec<T>`.
fn argument(of: &Type) -> Option<&Type> {
    let Type::Path(path) = of else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().rev().find_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of),
        _ => None,
    })
}

fn label_of(ident: &Ident) -> LitStr {
    LitStr::new(&plain(ident), ident.span())
}

/// Returns the text of an identifier, without `r#`.
fn plain(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

/// Returns the name that `serde` gives to a field.
fn serialized_name(field: &Field) -> String {
    let mut name = field.ident.as_ref().map(plain).unwrap_or_default();
    for attribute in field.attrs.iter().filter(|it| it.path().is_ident("serde")) {
        // What serde does not accept is its own error.
        let _ = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") && meta.input.peek(syn::Token![=]) {
                name = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            }
            Ok(())
        });
    }
    name
}
