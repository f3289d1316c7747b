//! The attributes: `#[entity(…)]` and `#[index(…)]`.

use proc_macro2::Span;
use syn::{
    Attribute, Error, Ident, LitInt, LitStr, Path, Result, Token, Type, meta::ParseNestedMeta,
    parenthesized, punctuated::Punctuated,
};

/// All mistakes of a declaration, each with its place.
#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    pub(crate) fn add(&mut self, mistake: Error) {
        match &mut self.0 {
            Some(all) => all.combine(mistake),
            none => *none = Some(mistake),
        }
    }

    pub(crate) fn at(&mut self, place: Span, message: impl std::fmt::Display) {
        self.add(Error::new(place, message));
    }

    /// Returns the value of `result`, or records its mistake.
    pub(crate) fn check<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|mistake| self.add(mistake)).ok()
    }

    pub(crate) fn into_error(self) -> Option<Error> {
        self.0
    }
}

/// `#[entity(…)]` of a struct.
#[derive(Default)]
pub(crate) struct EntityAttributes {
    pub(crate) subspace: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) is_global: bool,
    pub(crate) upgrade: Option<Path>,
    pub(crate) store: Option<Path>,
    /// Whether a part could not be parsed, so that others may be missing only for that reason.
    pub(crate) is_damaged: bool,
}

impl EntityAttributes {
    pub(crate) fn parse(attributes: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let mut parsed = Self::default();
        for attribute in attributes.iter().filter(|it| it.path().is_ident("entity")) {
            let read = attribute.parse_nested_meta(|meta| parsed.read(&meta));
            parsed.is_damaged |= mistakes.check(read).is_none();
        }
        parsed
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("subspace") {
            return once(meta, &mut self.subspace);
        } else if meta.path.is_ident("version") {
            return once(meta, &mut self.version);
        } else if meta.path.is_ident("upgrade") {
            return once(meta, &mut self.upgrade);
        } else if meta.path.is_ident("crate") {
            return once(meta, &mut self.store);
        } else if meta.path.is_ident("global") {
            self.is_global = true;
            return Ok(());
        }
        Err(meta
            .error("unknown attribute: a struct has subspace, version, global, upgrade and crate"))
    }
}

/// `#[entity(…)]` of a field.
#[derive(Default)]
pub(crate) struct FieldAttributes {
    pub(crate) is_scope: bool,
    /// The place of `key`, and its labels.
    pub(crate) key: Option<(Span, Vec<LitStr>)>,
    pub(crate) is_secret: bool,
    pub(crate) is_blob: bool,
}

impl FieldAttributes {
    pub(crate) fn parse(attributes: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let mut parsed = Self::default();
        for attribute in attributes.iter().filter(|it| it.path().is_ident("entity")) {
            mistakes.check(attribute.parse_nested_meta(|meta| parsed.read(&meta)));
        }
        parsed
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let place = span(meta);
        if meta.path.is_ident("scope") {
            self.is_scope = true;
        } else if meta.path.is_ident("key") {
            self.key = Some((place, labels(meta)?));
        } else if meta.path.is_ident("secret") {
            self.is_secret = true;
        } else if meta.path.is_ident("blob") {
            self.is_blob = true;
        } else {
            return Err(meta.error("unknown attribute: a field has scope, key, secret and blob"));
        }
        Ok(())
    }
}

/// Type of an index.
pub(crate) enum Kind {
    Unique,
    Multi,
    FanOut,
    Count,
    /// With the included fields.
    Covering(Vec<Ident>),
}

/// `#[index(…)]` of a field or a struct.
pub(crate) struct IndexAttributes {
    pub(crate) place: Span,
    pub(crate) kind: Kind,
    pub(crate) name: LitStr,
    pub(crate) is_global: bool,
    pub(crate) constant: Option<Ident>,
    pub(crate) labels: Vec<LitStr>,
    /// The indexed fields; empty for the field that has the attribute.
    pub(crate) on: Vec<Ident>,
    /// A function of the record, and the type of its values.
    pub(crate) value: Option<(Path, Type)>,
}

const KINDS: &str = "an index is one of unique, multi, fan_out, count and covering(field, …)";

impl IndexAttributes {
    /// Returns the indexes that `attributes` declare.
    pub(crate) fn parse(attributes: &[Attribute], mistakes: &mut Mistakes) -> Vec<Self> {
        let indexes = attributes.iter().filter(|it| it.path().is_ident("index"));
        indexes.filter_map(|attribute| mistakes.check(Self::read(attribute))).collect()
    }

    fn read(attribute: &Attribute) -> Result<Self> {
        let place = attribute.path().get_ident().map_or_else(Span::call_site, Ident::span);
        let (mut kind, mut name, mut is_global, mut constant) = (None, None, false, None);
        let (mut given, mut on) = (Vec::new(), Vec::new());
        let (mut value, mut value_type): (Option<Path>, Option<Type>) = (None, None);
        attribute.parse_nested_meta(|meta| {
            let path = &meta.path;
            if path.is_ident("unique") {
                set(&meta, &mut kind, Kind::Unique)
            } else if path.is_ident("multi") {
                set(&meta, &mut kind, Kind::Multi)
            } else if path.is_ident("fan_out") {
                set(&meta, &mut kind, Kind::FanOut)
            } else if path.is_ident("count") {
                set(&meta, &mut kind, Kind::Count)
            } else if path.is_ident("covering") {
                let fields = fields(&meta)?;
                set(&meta, &mut kind, Kind::Covering(fields))
            } else if path.is_ident("name") {
                once(&meta, &mut name)
            } else if path.is_ident("global") {
                is_global = true;
                Ok(())
            } else if path.is_ident("constant") {
                once(&meta, &mut constant)
            } else if path.is_ident("label") || path.is_ident("labels") {
                given = labels(&meta)?;
                Ok(())
            } else if path.is_ident("on") {
                on = fields(&meta)?;
                Ok(())
            } else if path.is_ident("value") {
                once(&meta, &mut value)
            } else if path.is_ident("type") {
                once(&meta, &mut value_type)
            } else {
                Err(meta.error(format!("unknown attribute: {KINDS}, with name = \"…\"")))
            }
        })?;
        let kind = kind.ok_or_else(|| Error::new(place, KINDS))?;
        let name = name.ok_or_else(|| {
            let message = "an index has a persisted name: #[index(…, name = \"…\")]";
            Error::new(place, message)
        })?;
        let value = match (value, value_type) {
            (Some(function), Some(of)) => Some((function, of)),
            (None, None) => None,
            _ => {
                let message = "`value = function` and `type = Type` belong together: the function \
                               of the record, and the type of the indexed values";
                return Err(Error::new(place, message));
            }
        };
        Ok(Self { place, kind, name, is_global, constant, labels: given, on, value })
    }
}

fn span(meta: &ParseNestedMeta<'_>) -> Span {
    meta.path.segments.first().map_or_else(Span::call_site, |first| first.ident.span())
}

fn set<T>(meta: &ParseNestedMeta<'_>, slot: &mut Option<T>, value: T) -> Result<()> {
    if slot.is_some() {
        return Err(meta.error("this is given twice"));
    }
    *slot = Some(value);
    Ok(())
}

/// Reads `= value`, which may be given once.
fn once<T: syn::parse::Parse>(meta: &ParseNestedMeta<'_>, slot: &mut Option<T>) -> Result<()> {
    let value = meta.value()?.parse()?;
    set(meta, slot, value)
}

/// Reads `(field, …)`.
fn fields(meta: &ParseNestedMeta<'_>) -> Result<Vec<Ident>> {
    let content;
    parenthesized!(content in meta.input);
    let fields = Punctuated::<Ident, Token![,]>::parse_terminated(&content)?;
    if fields.is_empty() {
        return Err(meta.error("this names at least one field"));
    }
    Ok(fields.into_iter().collect())
}

/// Reads `= "label"` or `("label", …)`, or nothing.
fn labels(meta: &ParseNestedMeta<'_>) -> Result<Vec<LitStr>> {
    if meta.input.peek(syn::token::Paren) {
        let content;
        parenthesized!(content in meta.input);
        let labels = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
        return Ok(labels.into_iter().collect());
    }
    if meta.input.peek(Token![=]) {
        return Ok(vec![meta.value()?.parse()?]);
    }
    Ok(Vec::new())
}
