//! The fast path through an element: token by token, and block by block where tags are small and many.
//!
//! All functions must be inlined into the function that is compiled for the actual processor, so they are
//! `inline(always)`.

use fearless_simd::{Level, Simd, dispatch};

use super::block::{Block, DenseKind, DenseTag, MOST};
use super::cursor::{Cursor, Key, LookAhead, Names};
use crate::xml::header::Header;
use crate::xml::kind::Kind;
use crate::xml::open_elements::{OpenElement, Spelled};
use crate::xml::progress::ScanProgress;

/// The number of tokens, with fewer than [`SMALL`] bytes on average, after which blocks are tried.
const FEW: usize = 6;
const SMALL: usize = 12;
/// The minimum number of tags in a block for trying another block.
const DENSE: u32 = 3;
/// The first bytes of the reserved namespaces.
const HTTP: u64 = u64::from_le_bytes(*b"http://w");

/// Takes tokens while they are complete and ordinary. Returns whether the element is complete.
pub(in crate::xml) fn advance(
    level: Level,
    progress: &mut ScanProgress,
    bytes: &[u8],
    header: &Header,
    depth: usize,
) -> bool {
    if header.default_namespace() != header.content_namespace() {
        return false;
    }
    let content = header.default_namespace().as_bytes();
    dispatch!(level, simd => tokens(simd, progress, bytes, content, depth))
}

#[inline(always)]
fn tokens<S: Simd>(simd: S, progress: &mut ScanProgress, bytes: &[u8], content: &[u8], depth: usize) -> bool {
    let mut cursor = Cursor::new(simd, bytes, progress.at());
    if progress.is_outside() {
        match root(progress, &mut cursor, bytes, content, depth) {
            Some(true) => {
                progress.advance_to(cursor.place());
                return true;
            }
            Some(false) => {}
            None => return false,
        }
    }
    let (mut tokens, mut since) = (0, cursor.place());
    loop {
        let at = cursor.place();
        tokens += 1;
        if tokens == FEW {
            let dense = at - since <= FEW * SMALL;
            (tokens, since) = (0, at);
            if dense {
                let reached = dense_tags(simd, progress, bytes, at, depth);
                if progress.is_outside() {
                    progress.advance_to(reached);
                    return true;
                }
                if reached != at {
                    cursor.go_to(reached);
                }
                continue;
            }
        }
        let taken = match cursor.ahead() {
            LookAhead::Start => start_tag(progress, &mut cursor, depth),
            LookAhead::Text => cursor.text(),
            LookAhead::End => match end_tag(progress, &mut cursor, bytes) {
                Some(()) if progress.is_outside() => {
                    progress.advance_to(cursor.place());
                    return true;
                }
                taken => taken,
            },
        };
        if taken.is_none() {
            progress.advance_to(at);
            return false;
        }
    }
}

/// Takes tags, with the text between them, while they are dense. Returns the place where it stops, at the latest the
/// end of the element.
#[inline(always)]
fn dense_tags<S: Simd>(simd: S, progress: &mut ScanProgress, bytes: &[u8], mut at: usize, depth: usize) -> usize {
    while progress.depth().saturating_add(MOST) <= depth
        && let Some(mut block) = Block::new(simd, bytes, at)
    {
        let (begin, few) = (at, block.len() < DENSE);
        while let Some(tag) = block.next() {
            let name = Spelled { start: begin + tag.name, len: tag.name_len, word: block.word(tag.name) };
            at = begin + tag.end;
            if tag.kind == DenseKind::End {
                if !dense_end(progress, &name, bytes) {
                    return begin + tag.start;
                }
                if progress.is_outside() {
                    return at;
                }
                continue;
            }
            if block.is_notable() && attributes(&block, tag).is_none() {
                return begin + tag.start;
            }
            if tag.kind == DenseKind::Start {
                match block.end_of(&name) {
                    Some(end) => at = begin + end,
                    None => progress.open(name),
                }
            }
        }
        if few {
            break;
        }
    }
    at
}

#[inline(always)]
fn dense_end(progress: &mut ScanProgress, name: &Spelled, bytes: &[u8]) -> bool {
    let Some(OpenElement { name: open, .. }) = progress.innermost() else { return false };
    if open.len != name.len {
        return false;
    }
    let same = if name.is_short() { open.begins(name.word) } else { open.bytes(bytes) == name.bytes(bytes) };
    if !same {
        return false;
    }
    progress.close(bytes);
    true
}

/// Takes the root's start tag. Returns whether it is the whole element.
#[inline(always)]
fn root<S: Simd>(
    progress: &mut ScanProgress,
    cursor: &mut Cursor<'_, S>,
    bytes: &[u8],
    content: &[u8],
    depth: usize,
) -> Option<bool> {
    let tag = cursor.start_tag().filter(|_| depth > 0)?;
    let stanza = tag.xmlns.is_none_or(|range| bytes.get(range) == Some(content));
    progress.set_kind(if stanza { Kind::of(tag.name.bytes(bytes)) } else { Kind::Other });
    if !tag.empty {
        progress.open(tag.name);
    }
    Some(tag.empty)
}

#[inline(always)]
fn start_tag<S: Simd>(progress: &mut ScanProgress, cursor: &mut Cursor<'_, S>, depth: usize) -> Option<()> {
    let tag = cursor.start_tag().filter(|_| progress.depth() < depth)?;
    if !tag.empty && !cursor.rest_of_leaf(&tag.name) {
        progress.open(tag.name);
    }
    Some(())
}

#[inline(always)]
fn end_tag<S: Simd>(progress: &mut ScanProgress, cursor: &mut Cursor<'_, S>, bytes: &[u8]) -> Option<()> {
    cursor.end_tag(&progress.innermost()?.name)?;
    progress.close(bytes);
    Some(())
}

/// Returns `None` if an attribute of the tag may be a duplicate, or may declare a reserved namespace.
#[inline(always)]
fn attributes(block: &Block<'_>, mut tag: DenseTag) -> Option<()> {
    let many = tag.has_many();
    let mut names = Names::default();
    while let Some((start, len)) = tag.next_attribute() {
        // Only a value that begins with these bytes may be such a namespace.
        if block.word(start + len + 2) == HTTP {
            return None;
        }
        if many {
            names.add(&Key { word: block.word(start), len }, block.word((start + len).saturating_sub(8)))?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;
    use crate::xml::FrameLimits;
    use crate::xml::scan::Scan;

    /// A nesting limit that is sufficient for blocks.
    const DEEP: usize = MOST + 6;

    /// Returns the processor levels that can be tested on this processor.
    fn levels() -> [Level; 2] {
        [Level::new(), Level::baseline()]
    }

    /// Returns the result for bytes that first end at `cut` and are then complete.
    fn read(level: Option<Level>, bytes: &[u8], cut: usize, depth: usize) -> String {
        let (header, limits) = (Header::bare(), FrameLimits::new(bytes.len(), depth));
        let mut scan = Scan::default();
        let mut result = scan.advance_with(level, &bytes[..cut], &header, &limits);
        if matches!(result, Ok(None)) {
            result = scan.advance_with(level, bytes, &header, &limits);
        }
        format!("{result:?} {:?}", result.is_ok().then(|| scan.finish()))
    }

    /// Checks that the fast path and the exact path agree. Returns whether the bytes are an element.
    fn check(bytes: &[u8], cut: usize, depth: usize) -> bool {
        let exact = read(None, bytes, bytes.len(), depth);
        for level in levels() {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(read(Some(level), bytes, cut, depth), exact, "{level:?}, cut at {cut}: {shown}");
        }
        exact.starts_with("Ok(Some")
    }

    const PIECES: &[&str] = &[
        "<b/>",
        "<b />",
        "<b></b>",
        "<b>5</b>",
        "<b c='d'/>",
        "<b c='d' />",
        "<b c=\"d\">e</b>",
        "<b c='d' e='f'><g h='i'>j</g></b>",
        "<b c='d' c='f'/>",
        "<b c='d' e='f' g='h' i='j' k='l' m='n' o='p' q='r' s='t' u='v'/>",
        "<description clockrates='1' clockrates='2'/>",
        "<b c='d'e='f'/>",
        "<b c='d'  e='f'/>",
        "<b\tc='d'/>",
        "<b c = 'd'/>",
        "<b c='d\"e'/>",
        "<b c=\"it's\"/>",
        "<b c='=\"'/>",
        "<b c='e=\"f'/><b c=\"g='h\"/>",
        "<b c='>'/>",
        "<b c='a/>b'/>",
        "<b c='<'/>",
        "<b c='><'/>",
        "<b c='><d e'></b>",
        "><b =</c>",
        "><b c</b>",
        "><b/>",
        "x><b c='d'>y></b>",
        "<b c='&amp;'/>",
        "<b c='&lol;'/>",
        "<b c='\u{44F}'/>",
        "<b c='\u{FFFF}'/>",
        "<b c=d/>",
        "<b c/>",
        "<b =''/>",
        "<1/>",
        "<b -c=''/>",
        "<b/ >",
        "<b//>",
        "</b>",
        "<b></c>",
        "<b></bb>",
        "<bb></b>",
        "<b></b >",
        "<b></b c='d'>",
        "<payload-type></payload-type>",
        "<payload-type></payload-typo>",
        "<payload-type></payload-types>",
        "<payload-type></b>",
        "<b></payload-type>",
        "<b xmlns='u'/>",
        "<b xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<b xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<b xmlns='http://jabber.org/protocol/disco#info'/>",
        "<b xmlns='\u{44F}'/>",
        "<p:b xmlns:p='u' p:c=''><p:d/></p:b>",
        "<b xml:lang='en'/>",
        "<\u{44F}/>",
        "text",
        "it's",
        "\"",
        ">",
        "a='b'",
        "]]",
        "]]>",
        "&lt;",
        "&",
        "\n",
        "\u{7F}",
        "\u{1}",
        "\u{44F}\u{1F600}",
        "\u{FFFE}",
        "<![CDATA[<]]>",
        "<!-- -->",
        "<?x?>",
        "<c><c><c><c><c><c><c></c></c></c></c></c></c></c>",
        "<c><c><c><c><c><c><c/></c></c></c></c></c></c>",
        "<c><c><c><c><c><c>x</c></c></c></c></c></c>",
    ];

    #[test]
    fn every_piece_is_read_as_the_exact_path_reads_it_wherever_it_stands() {
        let (mut right, mut wrong) = (0, 0);
        for piece in PIECES {
            for offset in 0..70 {
                let pad = "x".repeat(offset);
                let tags = "<f n='3'><v k='t'>5</v></f>";
                for document in [
                    format!("<a>{pad}{piece}{}</a>", &pad[..offset / 2]),
                    format!("<message to='{pad}'>{piece}</message>"),
                    format!("<a>{}<b>{pad}</b>{piece}{}</a>", tags.repeat(3), tags.repeat(5)),
                    format!("<a>{}<{pad}b/><b/>{piece}{}</a>", tags.repeat(3), tags.repeat(5)),
                ] {
                    let cut = (offset * 7) % document.len();
                    let fine = check(document.as_bytes(), cut, if offset % 4 == 0 { 8 } else { DEEP });
                    (right, wrong) = if fine { (right + 1, wrong) } else { (right, wrong + 1) };
                }
            }
        }
        assert!(right > 5000 && wrong > 5000, "{right} right, {wrong} wrong");
    }

    #[test]
    fn any_byte_in_any_place_of_dense_tags_is_read_as_the_exact_path_reads_it() {
        let document = "<a><b c='1'>2</b><d/><e f='3' g='4'/>5<h><i/></h><j k='6' l='7'>8</j>".to_owned()
            + &"<f n='3'><v k='t'>5</v></f><ab cd='ef' />".repeat(4)
            + "</a>";
        for at in 70..200 {
            for byte in (0..0x80).chain([0x80, 0xC3, 0xEF, 0xFF]) {
                let mut bytes = document.clone().into_bytes();
                bytes[at] = byte;
                check(&bytes, bytes.len(), DEEP);
            }
            for bytes in ["", "'", "\"", "='", "<", ">", "><", "/", "&amp;", "a='", "' b", "]]>"] {
                let mut changed = document.clone();
                changed.insert_str(at, bytes);
                check(changed.as_bytes(), at, DEEP);
                changed.replace_range(at + bytes.len()..=at + bytes.len(), "");
                check(changed.as_bytes(), at, DEEP);
            }
        }
    }

    #[test]
    fn elements_are_nested_as_deeply_as_the_exact_path_allows() {
        for levels in 1..2 * DEEP {
            for tag in ["<a>", "<a b='c'>", "<a><d/>"] {
                let document = tag.repeat(levels) + &"<b>c</b>".repeat(20) + &"</a>".repeat(levels);
                assert_eq!(check(document.as_bytes(), document.len() / 2, DEEP), levels < DEEP, "{levels} of {tag}");
            }
        }
    }

    fn document() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => select(PIECES.iter().filter(|piece| piece.starts_with("<b")).copied().collect::<Vec<_>>()),
            1 => select(PIECES),
            4 => select(&["<f n='3'>", "</f>", "<v k='t'>5</v>", "<f n='3'></f>", " ", "12"][..]),
        ];
        let changes = prop::collection::vec((any::<Index>(), select(&b"<>/='\" ab1-&]\n\xD1\x8F"[..])), 0..2);
        (prop::collection::vec(piece, 0..60), changes).prop_map(|(pieces, changes)| {
            let mut bytes = format!("<a>{}</a>", pieces.concat()).into_bytes();
            for (at, byte) in changes {
                let at = 1 + at.index(bytes.len() - 1);
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn documents_are_read_as_the_exact_path_reads_them(bytes in document(), cut in any::<Index>()) {
            check(&bytes, cut.index(bytes.len()), DEEP);
        }
    }

    #[test]
    fn the_fast_path_is_taken() {
        let header: Arc<Header> = Header::bare();
        let tags = "<f n='3'><v k='t'>5</v></f>".repeat(40);
        for document in [
            format!(
                "<message from='a@b/c' to=\"d@e/f\" type='chat' id='1'><body>{}</body></message>",
                "x ".repeat(300)
            ),
            format!("<iq id='{}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>", "x".repeat(300)),
            "<a b='\u{44F}&amp;'>it's \u{44F} &amp; \u{1F600} ]] \n > \"</a>".to_owned(),
            format!("<a>{tags}</a>"),
        ] {
            for level in levels() {
                let mut progress = ScanProgress::default();
                assert!(advance(level, &mut progress, document.as_bytes(), &header, DEEP), "{level:?}: {document}");
            }
        }
    }
}
