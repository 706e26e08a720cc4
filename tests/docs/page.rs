//! A page in Markdown: its anchors as GitHub makes them, its links and its code blocks.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd};

/// The parts of a page that the tests check.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) anchors: BTreeSet<String>,
    /// The targets of links and images.
    pub(crate) links: Vec<String>,
    pub(crate) blocks: Vec<Block>,
    /// Code in text, outside of headings and blocks.
    pub(crate) phrases: Vec<String>,
}

/// A fenced code block.
#[derive(Debug)]
pub(crate) struct Block {
    /// The text after the opening fence.
    pub(crate) info: String,
    pub(crate) code: String,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut headings = Headings::default();
        let (mut heading, mut block) = (None::<String>, None::<Block>);
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.extend(heading.take().map(|text| headings.anchor(&text)))
                }
                Event::Start(Tag::CodeBlock(kind)) => block = Some(Block { info: info(kind), code: String::new() }),
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Code(code) if heading.is_none() => page.phrases.push(code.into_string()),
                Event::Text(text) | Event::Code(text) => {
                    let target = block.as_mut().map(|block| &mut block.code).or(heading.as_mut());
                    if let Some(target) = target {
                        target.push_str(&text);
                    }
                }
                Event::Html(html) | Event::InlineHtml(html) => page.links.extend(html_links(&html)),
                _ => {}
            }
        }
        page
    }
}

fn info(kind: CodeBlockKind<'_>) -> String {
    match kind {
        CodeBlockKind::Fenced(info) => info.into_string(),
        CodeBlockKind::Indented => String::new(),
    }
}

fn html_links(html: &CowStr<'_>) -> Vec<String> {
    let values = ["href=\"", "src=\""].into_iter().flat_map(|attribute| html.split(attribute).skip(1));
    values.filter_map(|rest| rest.split_once('"')).map(|(target, _)| target.to_owned()).collect()
}

/// The headings of a page so far, used to number identical ones.
#[derive(Default)]
struct Headings(BTreeMap<String, usize>);

impl Headings {
    /// Returns the anchor of a heading. GitHub keeps letters, digits, `_` and `-` of the lower-case text and turns each
    /// space into `-`.
    fn anchor(&mut self, heading: &str) -> String {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
        let anchor = heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
        let before = self.0.entry(anchor.clone()).or_default();
        *before += 1;
        if *before == 1 { anchor } else { format!("{anchor}-{}", *before - 1) }
    }
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# What happens when…\n## `[[host]]` & *more*_x_\n## Limits on clients, and on the server\n# A [b](c)\n# A b\n\
                ```sh\n# no heading\n```\n";
    let anchors = ["a-b", "a-b-1", "host--morex", "limits-on-clients-and-on-the-server", "what-happens-when"];
    let page = Page::parse(text);
    assert_eq!(page.anchors.iter().map(String::as_str).collect::<Vec<_>>(), anchors);
}

#[test]
fn links_are_found_in_text_tables_images_and_html_but_not_in_code() {
    let text = "[a](1) ![b](2) `[c](3)` <a href=\"4\">\n\n| x |\n|---|\n| [d](5) |\n\n```sh\n[e](6)\n```\n\n[f][g]\n\n[g]: 7\n";
    assert_eq!(Page::parse(text).links, ["1", "2", "4", "5", "7"]);
}
