//! Checks README.md, its neighbours and the pages in docs/: every link resolves, every file that is named exists, every page is
//! in the index, README.md stays short, every configuration is accepted, and every command exists. Needs no peers:
//! `cargo test --test docs`.
#![allow(clippy::unwrap_used, reason = "a test that fails should do so where it fails")]
#![allow(clippy::wildcard_enum_match_arm, reason = "most of the events of a Markdown parser are of no interest")]

mod commands;
#[path = "../../examples/embed.rs"]
mod embed;
mod facts;
mod operating;
mod page;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use pushward::config::Config;

use page::Page;

const README: &str = "README.md";
const INDEX: &str = "docs/README.md";
/// Pages beside README.md, where they exist.
const NEIGHBOURS: [&str; 3] = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
/// The beginnings of paths in text that stand for files of the repository.
const DIRECTORIES: [&str; 7] = ["src/", "tests/", "docs/", "benches/", "examples/", "fuzz/", ".ci/"];
const README_LINES: usize = 170;
/// Completes a block that shows only a part of a configuration.
const HOST: &str = "[[host]]\ndomain = \"example.org\"\n";

/// README.md, its neighbours and docs/*.md, by their paths in the repository.
struct Documentation {
    root: PathBuf,
    pages: BTreeMap<PathBuf, Page>,
}

impl Documentation {
    fn read(root: &Path) -> Self {
        let pages =
            fs::read_dir(root.join("docs")).unwrap().map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
        let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
        let neighbours = NEIGHBOURS.map(PathBuf::from).into_iter().filter(|path| root.join(path).exists());
        let pages = pages.chain([PathBuf::from(README)]).chain(neighbours);
        let pages = pages.map(|path| {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            (path, Page::parse(&text))
        });
        Self { root: root.to_owned(), pages: pages.collect() }
    }

    fn broken_links(&self) -> Vec<String> {
        let links = self.pages.iter().flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)));
        let broken = links.filter_map(|(path, link)| Some((path, link, self.broken(path, link)?)));
        broken.map(|(path, link, reason)| format!("{}: ({link}): {reason}", path.display())).collect()
    }

    /// Returns why the link of this page does not resolve. Links to other sites are not followed.
    fn broken(&self, page: &Path, link: &str) -> Option<&'static str> {
        if ["https:", "http:", "mailto:", "xmpp:"].iter().any(|scheme| link.starts_with(scheme)) {
            return None;
        }
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let Some(target) = target(page, file) else { return Some("outside the repository") };
        if !self.root.join(&target).exists() {
            return Some("no such file");
        }
        match (anchor, self.pages.get(&target)) {
            (None, _) => None,
            (Some(anchor), Some(page)) => (!page.anchors.contains(anchor)).then_some("no such heading"),
            (Some(_), None) => Some("an anchor in a file that is no page"),
        }
    }

    /// Returns the pages that the index does not link.
    fn unlisted(&self) -> Vec<&Path> {
        let index = Path::new(INDEX);
        let links = &self.pages.get(index).unwrap().links;
        let listed: Vec<_> = links.iter().filter_map(|link| target(index, link)).collect();
        let pages = self.pages.keys().filter(|path| path.starts_with("docs") && *path != index);
        pages.filter(|path| !listed.contains(path)).map(PathBuf::as_path).collect()
    }

    /// Returns the files that a text names and that do not exist, and the number of those that were looked for. A phrase may
    /// have arguments after the file.
    fn missing_files(&self) -> (Vec<String>, usize) {
        let phrases = self.pages.iter().flat_map(|(path, page)| page.phrases.iter().map(move |phrase| (path, phrase)));
        let files: Vec<_> = phrases
            .filter_map(|(path, phrase)| Some((path, phrase.split_whitespace().next()?)))
            .filter(|(_, file)| DIRECTORIES.iter().any(|directory| file.starts_with(directory)))
            .collect();
        let missing = files.iter().filter(|(_, file)| !self.root.join(file).exists());
        (missing.map(|(path, file)| format!("{}: {file}", path.display())).collect(), files.len())
    }

    /// Returns the configurations in blocks marked `toml`, with their pages. Toml of another kind is marked `toml other`.
    fn configurations(&self) -> impl Iterator<Item = (&Path, &str)> {
        let blocks = self.pages.iter().flat_map(|(path, page)| page.blocks.iter().map(move |block| (path, block)));
        blocks.filter(|(_, block)| block.info == "toml").map(|(path, block)| (path.as_path(), block.code.as_str()))
    }
}

/// Returns the path in the repository that a page links as `file`, or `None` if it is outside.
fn target(page: &Path, file: &str) -> Option<PathBuf> {
    if file.is_empty() {
        return Some(page.to_owned());
    }
    let mut path = page.parent().unwrap().to_owned();
    for component in Path::new(file).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => path.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// Parses a block as a whole configuration, as all but the host, or as the keys of a host. Returns all errors if none fits.
fn rejected(block: &str) -> Option<String> {
    let readings = [block.to_owned(), format!("{block}\n{HOST}"), format!("{HOST}{block}")];
    let mut errors = String::new();
    for reading in &readings {
        match Config::parse(reading, Path::new("config.toml")) {
            Ok(_) => return None,
            Err(error) => errors += &format!("\n{error}"),
        }
    }
    Some(errors)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_link_and_every_anchor_resolves() {
    let documentation = Documentation::read(repository());
    let links: usize = documentation.pages.values().map(|page| page.links.len()).sum();
    assert!(documentation.pages.len() > 5 && links > 20, "{:?}, {links} links", documentation.pages.keys());
    let broken = documentation.broken_links();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_that_is_named_exists() {
    let (missing, total) = Documentation::read(repository()).missing_files();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(total > 40, "{total} files");
}

#[test]
fn the_index_lists_every_page() {
    let documentation = Documentation::read(repository());
    assert_eq!(documentation.unlisted(), Vec::<&Path>::new(), "not in {INDEX}");
}

#[test]
fn the_readme_is_one_page() {
    let lines = fs::read_to_string(repository().join(README)).unwrap().lines().count();
    assert!(lines <= README_LINES, "{README} has {lines} lines; at most {README_LINES}: move something to docs/");
}

/// The guide's commands are run by `guide::*`.
#[test]
fn the_readme_sets_up_as_the_guide_does() {
    let documentation = Documentation::read(repository());
    let setup = |page: &str| {
        let blocks = &documentation.pages.get(Path::new(page)).unwrap().blocks;
        blocks.iter().map(|block| block.code.as_str()).find(|code| code.contains("pushward setup"))
    };
    let commands = setup(README);
    assert!(commands.is_some());
    assert_eq!(commands, setup("docs/getting-started.md"));
}

#[test]
fn every_configuration_is_accepted() {
    let documentation = Documentation::read(repository());
    let configurations: Vec<_> = documentation.configurations().collect();
    assert!(configurations.len() >= 3, "{configurations:#?}");
    for (page, block) in configurations {
        if let Some(errors) = rejected(block) {
            panic!("{}:\n{block}{errors}", page.display());
        }
    }
}

#[test]
fn every_command_exists() {
    let documentation = Documentation::read(repository());
    let mut total = 0;
    for (path, page) in &documentation.pages {
        let (wrong, count) = commands::wrong_commands(page);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
        total += count;
    }
    assert!(total > 20, "{total} commands");
}

#[test]
fn the_example_notifies_and_delivers() {
    embed::main().unwrap();
}

#[test]
fn wrong_pages_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    fs::create_dir(directory.path().join("docs")).unwrap();
    write(README, "# One\n[a](docs/a.md#two) [b](docs/b.md) [c](#one) [d](#two) [e](https://example.org/#x)\n");
    write(
        "docs/a.md",
        "# Two\n[f](../README.md#one) [g](../../x) [h](/etc/passwd) [i](../config.toml#x) [j](a.md#Two)\n",
    );
    write("docs/c.md", "`docs/a.md` `docs/b.md x` `src/` `b.md`");
    write(INDEX, "[a](a.md)");
    write("config.toml", "");
    let documentation = Documentation::read(directory.path());
    let broken = [
        "README.md: (docs/b.md): no such file",
        "README.md: (#two): no such heading",
        "docs/a.md: (../../x): outside the repository",
        "docs/a.md: (/etc/passwd): outside the repository",
        "docs/a.md: (../config.toml#x): an anchor in a file that is no page",
        "docs/a.md: (a.md#Two): no such heading",
    ];
    assert_eq!(documentation.broken_links(), broken);
    let missing = ["docs/c.md: docs/b.md", "docs/c.md: src/"].map(str::to_owned).to_vec();
    assert_eq!(documentation.missing_files(), (missing, 3));
    assert_eq!(documentation.unlisted(), [Path::new("docs/c.md")]);
}

#[test]
fn wrong_configurations_are_found() {
    for accepted in ["upstream = '127.0.0.1:5322'\n", "drain_timeout = '5s'\n", "[push]\nmax_errors = 3\n", HOST] {
        assert_eq!(rejected(accepted), None, "{accepted}");
    }
    for wrong in
        ["upstreams = '127.0.0.1:5322'\n", "[puhs]\nmax_errors = 3\n", "[[host]]\nupstream = '127.0.0.1:5322'\n"]
    {
        assert!(rejected(wrong).is_some(), "{wrong}");
    }
}
