//! Which namespace a prefix stands for (Namespaces in XML 1.0 §6).

use std::ops::Range;

use super::error::FrameError;
use super::header::Header;
use super::ns;
use super::tag::Attr;

/// Prefixes in scope at any one place, the stream header's included. A lookup walks them.
pub(super) const MAX_PREFIXES: usize = 64;

/// Declarations kept for one element.
pub(super) const MAX_DECLARATIONS: usize = 4096;

/// A namespace declaration inside an element. Default declarations are kept only when their name needs normalising,
/// because the others can be read off the tag.
#[derive(Clone, Debug)]
pub(super) struct Decl {
    /// Offset of the tag that declares it.
    pub(super) tag: usize,
    prefix: Range<usize>,
    uri: Uri,
    /// The declaration that is in scope around this one.
    outer: Scope,
    depth: usize,
}

#[derive(Clone, Debug)]
enum Uri {
    Spelled(Range<usize>),
    Normalized(Box<str>),
}

/// A place in the chain of declarations: the innermost one in scope, counted from one; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope(usize);

/// The declarations of one element, in document order.
pub(super) trait Decls {
    fn at(&self, scope: Scope) -> Option<&Decl>;
    fn resolve<'a>(&'a self, bytes: &'a [u8], scope: Scope, prefix: &[u8]) -> Option<&'a [u8]>;
    fn scope_of(&self, tag: usize, outer: Scope) -> Scope;
    fn default_at<'a>(&'a self, bytes: &'a [u8], tag: usize) -> Option<&'a [u8]>;
}

impl Decl {
    fn prefix<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.prefix.clone()).unwrap_or_default()
    }

    fn uri<'a>(&'a self, bytes: &'a [u8]) -> &'a [u8] {
        match &self.uri {
            Uri::Spelled(range) => bytes.get(range.clone()).unwrap_or_default(),
            Uri::Normalized(uri) => uri.as_bytes(),
        }
    }
}

impl Decls for [Decl] {
    fn at(&self, scope: Scope) -> Option<&Decl> {
        scope.0.checked_sub(1).and_then(|index| self.get(index))
    }

    /// What `prefix` stands for within the element; `None` if only the stream header can say.
    fn resolve<'a>(&'a self, bytes: &'a [u8], mut scope: Scope, prefix: &[u8]) -> Option<&'a [u8]> {
        while let Some(decl) = self.at(scope) {
            if decl.prefix(bytes) == prefix {
                return Some(decl.uri(bytes));
            }
            scope = decl.outer;
        }
        None
    }

    /// The scope inside the tag at `tag`, which stands in `outer`.
    fn scope_of(&self, tag: usize, outer: Scope) -> Scope {
        let behind = self.partition_point(|decl| decl.tag <= tag);
        match behind.checked_sub(1).and_then(|index| self.get(index)) {
            Some(decl) if decl.tag == tag => Scope(behind),
            Some(_) | None => outer,
        }
    }

    /// The default namespace that the tag at `tag` declares, if it had to be normalised.
    fn default_at<'a>(&'a self, bytes: &'a [u8], tag: usize) -> Option<&'a [u8]> {
        let first = self.partition_point(|decl| decl.tag < tag);
        let own = self.get(first..)?.iter().take_while(|decl| decl.tag == tag);
        own.filter(|decl| decl.prefix.is_empty()).map(|decl| decl.uri(bytes)).next()
    }
}

/// Records what the attribute declares, if it declares a namespace, for the tag at `tag`.
pub(super) fn declare(
    decls: &mut Vec<Decl>,
    bytes: &[u8],
    tag: usize,
    scope: Scope,
    attr: &Attr,
) -> Result<Scope, FrameError> {
    let Some(prefix) = declared_prefix(bytes, attr) else {
        return Ok(scope);
    };
    let name = bytes.get(prefix.clone()).unwrap_or_default();
    let uri = attr.value(bytes);
    check_binding(name, &uri, attr.name.start)?;
    if prefix.is_empty() && attr.plain {
        return Ok(scope);
    }
    let depth = decls.at(scope).map_or(0, |decl| decl.depth) + 1;
    if depth > MAX_PREFIXES {
        return Err(FrameError::TooMany { what: "namespace prefixes", limit: MAX_PREFIXES });
    }
    if decls.len() == MAX_DECLARATIONS {
        return Err(FrameError::TooMany { what: "namespace declarations", limit: MAX_DECLARATIONS });
    }
    let uri = if attr.plain { Uri::Spelled(attr.value.clone()) } else { Uri::Normalized(uri.into()) };
    decls.push(Decl { tag, prefix, uri, outer: scope, depth });
    Ok(Scope(decls.len()))
}

/// The prefix that the attribute declares: empty for `xmlns`, `None` if it is no declaration.
pub(super) fn declared_prefix(bytes: &[u8], attr: &Attr) -> Option<Range<usize>> {
    let name = attr.name;
    if name.has_prefix() {
        let local = name.end - name.local(bytes).len();
        return (name.prefix(bytes) == b"xmlns").then_some(local..name.end);
    }
    (name.whole(bytes) == b"xmlns").then_some(name.end..name.end)
}

/// Namespaces in XML 1.0 §3: `xml` and `xmlns` and their namespaces are taken, and only the default can be undeclared.
fn check_binding(prefix: &[u8], uri: &str, at: usize) -> Result<(), FrameError> {
    let what = match (prefix, uri) {
        (b"xml", ns::XML) => return Ok(()),
        (b"xml" | b"xmlns", _) | (_, ns::XML | ns::XMLNS) => "reserved prefix or namespace",
        ([_, ..], "") => "prefix undeclared",
        ([..], _) => return Ok(()),
    };
    Err(FrameError::malformed(what, at))
}

/// What a prefix was found to stand for, and whose declaration said so.
#[derive(Clone, Copy)]
pub(super) enum Binding<'a> {
    /// A declaration within the element, or the prefix `xml`.
    Own(&'a [u8]),
    /// The declaration with this index in [`Header::prefixes_only`].
    Header(usize, &'a [u8]),
}

impl<'a> Binding<'a> {
    pub(super) fn uri(self) -> &'a [u8] {
        match self {
            Binding::Own(uri) | Binding::Header(_, uri) => uri,
        }
    }
}

/// Looks a non-empty prefix up in the element, then in the stream header.
pub(super) fn lookup<'a>(
    decls: &'a [Decl],
    bytes: &'a [u8],
    scope: Scope,
    prefix: &[u8],
    header: Option<&'a Header>,
) -> Option<Binding<'a>> {
    if prefix == b"xml" {
        return Some(Binding::Own(ns::XML.as_bytes()));
    }
    if let Some(uri) = decls.resolve(bytes, scope, prefix) {
        return Some(Binding::Own(uri));
    }
    let (index, uri) = header?.prefix(prefix)?;
    Some(Binding::Header(index, uri.as_bytes()))
}
