//! Namespace declarations and prefixes of a tag (Namespaces in XML 1.0 §3, §5, §6.3).

use std::ops::Range;

use super::tag::{Attr, Attrs, Tag, TagName, name};
use crate::hash;
use crate::xml::error::{FrameError, Unfit};
use crate::xml::hash_table::Table;
use crate::xml::limits::FrameLimits;
use crate::xml::ns;
use crate::xml::scope::{Declared, Namespace, PrefixBinding, ScopeId};

/// The maximum number of attributes with prefixes that are compared with one another.
const FEW: usize = 16;

/// Adds the namespace declarations of a tag, whose outer scope is `outer`. Returns the scope within the tag's element.
pub(super) fn declare(
    declared: &mut Declared,
    bytes: &[u8],
    attrs: &Attrs,
    outer: ScopeId,
    limits: &FrameLimits,
) -> Result<ScopeId, FrameError> {
    let first = declared.len();
    for attr in attrs.iter(bytes) {
        let Some(prefix) = declared_prefix(bytes, &attr) else { continue };
        let uri = attr.value(bytes);
        check_binding(bytes.get(prefix.clone()).unwrap_or_default(), &uri, attr.name.start)?;
        // A default namespace that needs no normalising can be read from the tag.
        if !prefix.is_empty() || !attr.plain {
            let at = attr.plain.then_some(attr.value.start);
            declared.add(prefix, &Namespace { uri: &uri, at }, limits)?;
        }
    }
    declared.enter(bytes, first, outer)
}

/// Returns the prefix that the attribute declares: empty for `xmlns`, `None` if the attribute is not a declaration.
pub(super) fn declared_prefix(bytes: &[u8], attr: &Attr) -> Option<Range<usize>> {
    let name = attr.name;
    if name.has_prefix() {
        let local = name.end - name.local(bytes).len();
        return (name.prefix(bytes) == b"xmlns").then_some(local..name.end);
    }
    (name.whole(bytes) == b"xmlns").then_some(name.end..name.end)
}

/// Checks a declaration. Namespaces in XML 1.0 §3: `xml`, `xmlns` and their namespaces are reserved, and only the
/// default namespace can be undeclared.
fn check_binding(prefix: &[u8], uri: &str, at: usize) -> Result<(), FrameError> {
    let what = match (prefix, uri) {
        (b"xml", ns::XML) => return Ok(()),
        (b"xml" | b"xmlns", _) | (_, ns::XML | ns::XMLNS) => Unfit::Reserved,
        ([_, ..], "") => Unfit::Undeclared,
        ([..], _) => return Ok(()),
    };
    Err(FrameError::unfit(what, at))
}

/// Checks the prefixes of a tag. `resolve` returns the namespace of a prefixed name.
pub(super) fn check_prefixes<'a>(
    tag: Tag,
    attrs: &Attrs,
    bytes: &[u8],
    resolve: impl Fn(TagName) -> Option<PrefixBinding<'a>>,
) -> Result<(), FrameError> {
    let unbound = |name: TagName| FrameError::unfit(Unfit::Unbound, name.start);
    if tag.name.has_prefix() && resolve(tag.name).is_none_or(|binding| binding.uri() == ns::XMLNS.as_bytes()) {
        return Err(unbound(tag.name));
    }
    let (mut few, mut many) = (Vec::<(TagName, PrefixBinding<'_>)>::new(), Table::default());
    let prefixed = attrs.iter(bytes).filter(|attr| attr.name.has_prefix() && declared_prefix(bytes, attr).is_none());
    let mut prefixed = prefixed.peekable();
    while let Some(attr) = prefixed.next() {
        let binding = resolve(attr.name).ok_or_else(|| unbound(attr.name))?;
        let local = attr.name.local(bytes);
        let same = |name: TagName, other: PrefixBinding<'_>| {
            // Namespaces can be long, so they are compared only if they are probably equal.
            name.local(bytes) == local && other.hash() == binding.hash() && other.uri() == binding.uri()
        };
        let mut twice = few.iter().any(|(name, other)| same(*name, *other));
        if few.len() < FEW && prefixed.peek().is_some() {
            few.push((attr.name, binding));
        } else if few.len() == FEW {
            let read = |number: u32| {
                let name = name(bytes, number as usize).ok()?;
                Some((name, resolve(name)?))
            };
            let hash = |(name, binding): (TagName, PrefixBinding<'_>)| {
                hash::of_bytes(name.local(bytes)) ^ u64::from(binding.hash())
            };
            let number = u32::try_from(attr.name.start).unwrap_or_default();
            let is_same = |number| read(number).is_some_and(|(name, other)| same(name, other));
            let before = many.replace(hash((attr.name, binding)), number, is_same, |n| read(n).map_or(0, hash));
            twice |= before.is_some();
        }
        if twice {
            return Err(FrameError::unfit(Unfit::DuplicateAttribute, attr.name.start));
        }
    }
    Ok(())
}
