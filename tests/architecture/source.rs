//! Reads the modules of `src/` with `syn`. [`Crate`] holds what each module declares and the paths that it names; the
//! rules in `main.rs` use it.
//!
//! Code under `#[cfg(test)]` and `#[cfg(any(test, fuzzing))]` does not count. A path to a re-export is followed to the file that declares the item.
//! Paths inside macro calls are found by their tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{
    Attribute, Fields, FnArg, Item, ItemFn, ItemImpl, ItemMod, ItemStatic, ItemStruct, Macro, Signature, Type, UseTree,
};

/// The segments of a path, or of a module's name below the crate.
pub(crate) type Segments = Vec<String>;

/// A module that is a file.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The file, relative to `src`.
    pub(crate) file: PathBuf,
    /// The number of lines up to the first test module.
    pub(crate) lines: usize,
    children: BTreeSet<String>,
    /// The items that the module itself declares.
    items: BTreeSet<String>,
    /// Imported names, and the full paths that they stand for.
    imports: BTreeMap<String, Segments>,
    /// Modules whose items are all imported.
    globs: Vec<Segments>,
    /// All paths, as they are written.
    pub(crate) paths: Vec<Segments>,
    /// The types of its `static` items, by name.
    pub(crate) statics: Vec<(String, String)>,
    /// The number of fields of its structs.
    pub(crate) structs: Vec<(String, usize)>,
    /// The types and traits that it declares.
    pub(crate) types: Vec<String>,
    /// Functions with a tuple parameter.
    pub(crate) tuples: Vec<String>,
    /// Types with an inherent `impl` block, as they are written.
    pub(crate) impls: BTreeSet<Segments>,
}

/// The crate.
#[derive(Debug)]
pub(crate) struct Crate {
    /// All modules that are files, by name. The name of `lib.rs` is empty.
    pub(crate) modules: BTreeMap<Segments, Module>,
}

impl Crate {
    /// Reads the crate, beginning with its `lib.rs`.
    pub(crate) fn read(src: &Path) -> Self {
        let mut modules = BTreeMap::new();
        read_module(src, Path::new("lib.rs"), src, Segments::new(), &mut modules);
        Self { modules }
    }

    /// Returns the module whose file declares the item that `path` names in `module`. `None` if the item is in another
    /// crate.
    pub(crate) fn resolve(&self, module: &Segments, path: &[String]) -> Option<Segments> {
        self.resolve_within(module, path, 16)
    }

    fn resolve_within(&self, module: &Segments, path: &[String], depth: usize) -> Option<Segments> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(&Segments::new(), rest, depth),
            "self" => self.descend(module, rest, depth),
            "super" => self.resolve_super(module, rest, depth),
            _ => {
                let at = self.modules.get(module)?;
                let local = at.children.contains(first) || at.items.contains(first) || at.imports.contains_key(first);
                if local { self.descend(module, path, depth) } else { None }
            }
        }
    }

    fn resolve_super(&self, module: &Segments, rest: &[String], depth: usize) -> Option<Segments> {
        let (_, parent) = module.split_last()?;
        match rest.split_first() {
            Some((next, further)) if next == "super" => self.resolve_super(&parent.to_vec(), further, depth),
            _ => self.descend(&parent.to_vec(), rest, depth),
        }
    }

    fn descend(&self, module: &Segments, path: &[String], depth: usize) -> Option<Segments> {
        let at = self.modules.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(module.clone()) };
        if at.children.contains(first) {
            let child = [module.as_slice(), std::slice::from_ref(first)].concat();
            return self.descend(&child, rest, depth);
        }
        if at.items.contains(first) {
            return Some(module.clone());
        }
        if let Some(import) = at.imports.get(first) {
            return self.resolve_within(module, &[import.as_slice(), rest].concat(), depth);
        }
        at.globs.iter().find_map(|glob| self.resolve_within(module, &[glob.as_slice(), path].concat(), depth))
    }

    /// Returns the modules that each module names.
    pub(crate) fn arrows(&self) -> BTreeMap<Segments, BTreeSet<Segments>> {
        self.modules
            .iter()
            .map(|(name, module)| {
                let mut named: BTreeSet<_> = module.paths.iter().filter_map(|path| self.resolve(name, path)).collect();
                named.remove(name);
                (name.clone(), named)
            })
            .collect()
    }
}

fn read_module(src: &Path, file: &Path, folder: &Path, name: Segments, modules: &mut BTreeMap<Segments, Module>) {
    let text = std::fs::read_to_string(src.join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines = text.lines().take_while(|line| *line != "mod tests {").count();
    let mut reader = Reader { module: Module { file: file.to_owned(), lines, ..Module::default() }, inline: 0 };
    reader.visit_file(&syntax);
    for child in reader.module.children.clone() {
        let (flat, nested) = (folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs"));
        let path = if flat.exists() { flat } else { nested };
        let relative = path.strip_prefix(src).expect("it is below src").to_owned();
        let below = [name.as_slice(), std::slice::from_ref(&child)].concat();
        read_module(src, &relative, &folder.join(&child), below, modules);
    }
    modules.insert(name, reader.module);
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test") || attribute.path().is_ident("cfg") && is_for_tests(attribute)
    })
}

/// Returns whether a `cfg` is `test` or `any(test, fuzzing)`.
fn is_for_tests(cfg: &Attribute) -> bool {
    cfg.parse_args::<TokenStream>().is_ok_and(|argument| {
        let words: String = argument.to_string().split_whitespace().collect();
        words == "test" || words == "any(test,fuzzing)"
    })
}

struct Reader {
    module: Module,
    /// Depth of the modules inside the file.
    inline: usize,
}

impl Reader {
    fn declare(&mut self, name: &syn::Ident) {
        if self.inline == 0 {
            self.module.items.insert(name.to_string());
        }
    }

    fn declare_type(&mut self, name: &syn::Ident) {
        self.declare(name);
        self.module.types.push(name.to_string());
    }

    /// Adds a path. `super` in a module inside the file means the file.
    fn add_path(&mut self, mut path: Segments) {
        for _ in 0..self.inline {
            if path.first().is_some_and(|first| first == "super") {
                path.remove(0);
                path.insert(0, "self".to_owned());
            }
        }
        if path.first().is_some_and(|first| first == "self") && path.get(1).is_some_and(|next| next == "super") {
            path.remove(0);
        }
        self.module.paths.push(path);
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &[String]) {
        match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                self.add_use(&path.tree, &prefix);
            }
            UseTree::Name(name) => self.import(&name.ident.to_string(), &name.ident.to_string(), prefix),
            UseTree::Rename(rename) => self.import(&rename.ident.to_string(), &rename.rename.to_string(), prefix),
            UseTree::Glob(_) => {
                if self.inline == 0 {
                    self.module.globs.push(prefix.to_vec());
                }
                self.add_path(prefix.to_vec());
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add_use(item, prefix)),
        }
    }

    fn import(&mut self, name: &str, imported_as: &str, prefix: &[String]) {
        let (path, imported_as) = match name {
            "self" => (prefix.to_vec(), prefix.last().map_or(imported_as, String::as_str)),
            _ => ([prefix, &[name.to_owned()]].concat(), imported_as),
        };
        if self.inline == 0 && path.first().is_some_and(|first| first != imported_as || path.len() > 1) {
            self.module.imports.insert(imported_as.to_owned(), path.clone());
        }
        self.add_path(path);
    }

    /// Adds the paths among the tokens of a macro call.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && colons < 2 => colons += 1,
                TokenTree::Group(group) => {
                    self.end_path(&mut path);
                    self.add_tokens(group.stream());
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.end_path(&mut path);
                    colons = 0;
                }
            }
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.add_path(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::ExternCrate(_)
            | Item::ForeignMod(_)
            | Item::TraitAlias(_)
            | Item::Union(_)
            | Item::Verbatim(_)
            | _ => {
                return visit::visit_item(self, item);
            }
        };
        if is_test(attributes) {
            return;
        }
        match item {
            Item::Const(item) => self.declare(&item.ident),
            Item::Enum(item) => self.declare_type(&item.ident),
            Item::Struct(item) => self.declare_type(&item.ident),
            Item::Trait(item) => self.declare_type(&item.ident),
            Item::Type(item) => self.declare(&item.ident),
            Item::Use(item) => self.add_use(&item.tree, &[]),
            Item::Macro(item) => item.ident.iter().for_each(|name| self.declare(name)),
            Item::Fn(_) | Item::Impl(_) | Item::Mod(_) | Item::Static(_) | _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast Signature) {
        let is_tuple = |input: &FnArg| match input {
            FnArg::Typed(input) => matches!(&*input.ty, Type::Tuple(tuple) if !tuple.elems.is_empty()),
            FnArg::Receiver(_) => false,
        };
        if signature.inputs.iter().any(is_tuple) {
            self.module.tuples.push(signature.ident.to_string());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.declare(&item.sig.ident);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast ItemStatic) {
        let mut words = Words::default();
        words.visit_type(&item.ty);
        self.module.statics.push((item.ident.to_string(), words.0.join(" ")));
        self.declare(&item.ident);
        visit::visit_item_static(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        let fields = match &item.fields {
            Fields::Named(fields) => fields.named.len(),
            Fields::Unnamed(fields) => fields.unnamed.len(),
            Fields::Unit => 0,
        };
        self.module.structs.push((item.ident.to_string(), fields));
        visit::visit_item_struct(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if let (None, Type::Path(of)) = (&item.trait_, &*item.self_ty) {
            self.module.impls.insert(segments(&of.path));
        }
        let tuples = self.module.tuples.len();
        visit::visit_item_impl(self, item);
        if item.trait_.is_some() {
            // The trait defines the parameters, so they do not count here.
            self.module.tuples.truncate(tuples);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        match &item.content {
            None => {
                self.module.children.insert(item.ident.to_string());
            }
            Some(_) => {
                self.inline += 1;
                visit::visit_item_mod(self, item);
                self.inline -= 1;
            }
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A single name is a variable, or was imported.
        if path.segments.len() > 1 {
            self.add_path(segments(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

fn segments(path: &syn::Path) -> Segments {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// The names in a type.
#[derive(Default)]
struct Words(Vec<String>);

impl Visit<'_> for Words {
    fn visit_ident(&mut self, ident: &syn::Ident) {
        self.0.push(ident.to_string());
    }
}
