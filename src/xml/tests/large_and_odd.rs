//! Tests with stanzas that a server may forward from other users. Large or unusual elements cost only work and memory
//! in proportion to their bytes, and an element that no client can read affects only itself.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::jid::BareJid;
use crate::push::classify::{self, Context};
use crate::push::rooms::Rooms;
use crate::session::rewrite;
use crate::xml::{
    Element, Frame, FrameError, FrameLimits, Framer, Header, Kind, MemoryShare, Node, SharedMemory, SkipReason, Skipped,
};

const HEADER: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:h'>";
/// The bytes per read.
const CHUNK: usize = 64 << 10;

fn framer(bytes: usize, share: Option<MemoryShare>) -> Framer {
    let mut framer = Framer::new(FrameLimits::server(bytes));
    framer.skip_unfit(share);
    framer.buffer().extend_from_slice(HEADER.as_bytes());
    assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
    framer
}

/// Concatenates `one(n)` for each `unit` of these bytes.
fn numbered(bytes: usize, unit: usize, one: impl Fn(usize) -> String) -> String {
    (0..bytes / unit).map(one).collect()
}

/// Returns a message of about this number of bytes, of one kind.
fn wild(kind: &str, bytes: usize) -> String {
    let inner = match kind {
        "nested elements" => "<a>".repeat(bytes / 7) + &"</a>".repeat(bytes / 7),
        "small elements" => "<a/>".repeat(bytes / 4),
        "attributes" => format!("<x{}/>", numbered(bytes, 10, |n| format!(" a{n:x}=''"))),
        "attributes of the root" => {
            let attributes = numbered(bytes, 10, |n| format!(" a{n:x}=''"));
            return format!("<message from='romeo@example.net/x' type='chat'{attributes}><body>x</body></message>");
        }
        "a long prefix" => {
            let prefix = "p".repeat(bytes / 2);
            format!("<x xmlns:{prefix}='u' xmlns:q='u'>{}</x>", "<q:a/>".repeat(bytes / 12))
        }
        "a long namespace" => {
            let uri = "u".repeat(bytes / 2);
            format!("<x xmlns:q='{uri}'>{}</x>", "<q:a q:b=''/>".repeat(bytes / 26))
        }
        "a long name" => {
            let name = "n".repeat(bytes / 4);
            format!("<{name}>{}</{name}>", "<a>".repeat(bytes / 14) + &"</a>".repeat(bytes / 14))
        }
        "references" => "&amp;".repeat(bytes / 5),
        "sections" => "<![CDATA[]]>".repeat(bytes / 12),
        _ => prefixes(kind, bytes),
    };
    format!("<message from='romeo@example.net/x' type='chat' id='1'>{inner}<body>x</body></message>")
}

/// Returns about this number of bytes of prefixes, of one kind.
fn prefixes(kind: &str, bytes: usize) -> String {
    match kind {
        "prefixes on a tag" => format!("<x{}/>", numbered(bytes, 18, |n| format!(" xmlns:p{n:x}='u'"))),
        "prefixes in scope times elements" => {
            let declarations = numbered(bytes, 36, |n| format!(" xmlns:p{n:x}='u'"));
            let elements = numbered(bytes, 22, |n| format!("<p{:x}:a/>", n % (bytes / 36)));
            format!("<x{declarations}>{elements}</x>")
        }
        "prefixes in nested scopes" => {
            let levels = bytes / 48;
            let nested: String = (0..levels).map(|n| format!("<p{n:x}:a xmlns:p{n:x}='u'>")).collect();
            let ends: String = (0..levels).rev().map(|n| format!("</p{n:x}:a>")).collect();
            format!("{nested}<p0:b/>{ends}")
        }
        "an outer prefix in nested scopes" => {
            let levels = bytes / 48;
            let nested: String = (0..levels).map(|n| format!("<a xmlns:p{n:x}='u'>")).collect();
            nested + &"<p0:b/>".repeat(levels) + &"</a>".repeat(levels)
        }
        "one prefix in nested scopes" => {
            let levels = bytes / 40;
            "<p:a xmlns:p='u'>".repeat(levels) + &"<p:b/>".repeat(levels) + &"</p:a>".repeat(levels)
        }
        "prefixes of siblings" => {
            let siblings = numbered(bytes, 32, |n| format!("<p:a xmlns:p='u{n:x}'/><p:b/>"));
            format!("<x xmlns:p='o'>{siblings}</x>")
        }
        "prefixed attributes" => {
            let attributes = numbered(bytes, 14, |n| format!(" {}:a{n:x}=''", if n % 2 == 0 { "p" } else { "h" }));
            format!("<x xmlns:p='u'{attributes}/>")
        }
        "prefixes of one namespace times attributes" => {
            let half = bytes / 72;
            let uri = "u".repeat(20);
            let declarations: String = (0..half).map(|n| format!(" xmlns:p{n:x}='{uri}{n:x}'")).collect();
            let attributes: String = (0..half).map(|n| format!(" p{n:x}:a=''")).collect();
            format!("<x{declarations}><y{attributes}/></x>")
        }
        _ => panic!("{kind}"),
    }
}

const KINDS: [&str; 17] = [
    "nested elements",
    "small elements",
    "attributes",
    "attributes of the root",
    "prefixes on a tag",
    "prefixes in scope times elements",
    "prefixes in nested scopes",
    "an outer prefix in nested scopes",
    "one prefix in nested scopes",
    "prefixes of siblings",
    "prefixed attributes",
    "prefixes of one namespace times attributes",
    "a long prefix",
    "a long namespace",
    "a long name",
    "references",
    "sections",
];

/// Reads the element in chunks. Returns the element and the maximum memory in use.
fn read(xml: &str) -> (Element, usize) {
    let memory = Arc::new(SharedMemory::default());
    memory.update(usize::MAX);
    let mut framer = framer(xml.len(), Some(MemoryShare { free: 0, memory: Arc::clone(&memory) }));
    let mut most = 0;
    for chunk in xml.as_bytes().chunks(CHUNK) {
        framer.buffer().extend_from_slice(chunk);
        let capacity = framer.buffer().capacity();
        match framer.next_frame() {
            // The charge covers its bytes and the additional memory.
            Ok(Some(Frame::Element(element))) => return (element, most.max(capacity + memory.used() - xml.len())),
            Ok(None) => {
                assert_eq!(memory.used(), framer.memory());
                most = most.max(framer.memory());
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no element")
}

/// Does everything that happens to a forwarded message: reading, classifying, stamping, storing, and reading it again.
fn relay(xml: &str) {
    let (element, _) = read(xml);
    assert_eq!((element.kind(), element.bytes().as_ref()), (Kind::Message, xml.as_bytes()));
    let account = BareJid::new("juliet@example.org").unwrap();
    let context = Context { account: &account, rooms: &Rooms::default() };
    assert!(classify::read(&element, context).class.is_important());
    let now = crate::clock::unix_millis();
    let bytes = rewrite::delayed(&element, "example.org", now).unwrap();
    let kept = Element::parse(bytes, element.header()).unwrap().on_stream(&Header::bare());
    let again = Element::parse(kept, &Header::bare()).unwrap();
    assert!(classify::read(&again, context).class.is_important());
    black_box(again);
}

/// Returns the processor time of the work, the minimum of several runs, because other processes use the processor too.
fn cost(work: impl Fn()) -> Duration {
    let spent = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let tries = (0..3).map(|_| {
        let before = spent();
        work();
        spent() - before
    });
    tries.min().unwrap()
}

#[test]
fn four_times_the_bytes_cost_about_four_times_the_work() {
    for kind in KINDS {
        let (small, large) = (wild(kind, 16 << 10), wild(kind, 64 << 10));
        let (once, more) = (cost(|| relay(&small)), cost(|| relay(&large)));
        // Quadratic work would take sixteen times as long.
        assert!(more < once * 8, "{kind}: {once:?}, then {more:?}");
    }
}

/// Tests are not optimised by default. In an optimised build, this is the maximum delay for other users.
#[test]
fn a_mebibyte_of_anything_is_relayed_in_less_than_100_ms() {
    for kind in KINDS {
        let xml = wild(kind, if cfg!(debug_assertions) { 16 << 10 } else { 1 << 20 });
        let took = cost(|| relay(&xml));
        assert!(took < Duration::from_millis(100) || cfg!(debug_assertions), "{kind}: {took:?}");
    }
}

#[test]
fn an_element_that_is_read_has_four_times_its_bytes_at_most() {
    for kind in KINDS {
        let xml = wild(kind, 256 << 10);
        let (_, most) = read(&xml);
        assert!(most <= 4 * xml.len(), "{kind}: {most} for {}", xml.len());
    }
}

#[test]
fn prefixes_mean_the_same_to_an_independent_parser_however_they_are_nested() {
    fn check(ours: Node<'_>, theirs: roxmltree::Node<'_, '_>) {
        assert_eq!((ours.name(), ours.ns()), (theirs.tag_name().name(), theirs.tag_name().namespace().unwrap_or("")));
        let theirs: Vec<_> = theirs.children().filter(|child| child.is_element()).collect();
        let ours: Vec<_> = ours.children().collect();
        assert_eq!(ours.len(), theirs.len());
        ours.into_iter().zip(theirs).for_each(|(ours, theirs)| check(ours, theirs));
    }
    // xorshift, for the same documents in every run.
    let mut state = 88_172_645_463_325_252_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    fn grow(depth: usize, below: &mut impl FnMut(usize) -> usize) -> String {
        const PREFIXES: [&str; 5] = ["p", "pp", "p-", "q", "h"];
        let mut tag = String::new();
        let first = below(5);
        for offset in 0..below(4) {
            tag += &format!(" xmlns:{}='u{}'", PREFIXES[(first + offset) % 5], below(3));
        }
        if below(4) == 0 {
            tag += [" xmlns='d&amp;'", " xmlns='e'", " xmlns=''"][below(3)];
        }
        let name = ["a".to_owned(), format!("{}:a", PREFIXES[below(5)])][below(2)].clone();
        let children: String = (0..below(4).min(depth)).map(|_| grow(depth - 1, below)).collect();
        format!("<{name}{tag}>{children}</{name}>")
    }
    let declared = "xmlns:p='op' xmlns:pp='opp' xmlns:p-='od' xmlns:q='oq' xmlns:h='oh' xmlns='jabber:client'";
    for _ in 0..300 {
        let xml = format!("<x {declared}>{}</x>", (0..3).map(|_| grow(7, &mut below)).collect::<String>());
        check(read(&xml).0.node(), roxmltree::Document::parse(&xml).unwrap().root_element());
    }
}

#[test]
fn a_server_may_send_what_a_client_may_not() {
    let attributes = |count: usize| (0..count).map(|n| format!(" a{n}=''")).collect::<String>();
    let prefixes: String = (0..70).map(|n| format!(" xmlns:p{n}='u'")).collect();
    let deep = "<a>".repeat(150) + &"</a>".repeat(150);
    for (inner, client, internet) in [
        (format!("<x{}/>", attributes(200)), true, false),
        (format!("<x{}/>", attributes(1025)), false, false),
        (format!("<x{prefixes}/>"), false, false),
        (deep, false, false),
    ] {
        let xml = format!("<message>{inner}</message>");
        let take = |limits| {
            let mut framer = Framer::new(limits);
            framer.buffer().extend_from_slice(format!("{HEADER}{xml}").as_bytes());
            assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
            match framer.next_frame() {
                Ok(Some(Frame::Element(element))) => assert_eq!(element.bytes(), xml.as_bytes()),
                Err(error) => {
                    assert_eq!(error.condition().name(), "policy-violation");
                    return false;
                }
                other => panic!("{other:?}"),
            }
            true
        };
        assert!(take(FrameLimits::server(1 << 20)), "{xml}");
        assert_eq!(take(FrameLimits::client(1 << 20, 128)), client, "{xml}");
        assert_eq!(take(FrameLimits::new(1 << 20, 128)), internet, "{xml}");
    }
}

/// Returns the frames of these bytes, given in chunks of this size.
fn frames(framer: &mut Framer, bytes: &[u8], chunk: usize) -> Vec<Result<Frame, FrameError>> {
    let mut seen = Vec::new();
    for part in bytes.chunks(chunk) {
        framer.buffer().extend_from_slice(part);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => seen.push(Ok(frame)),
                Ok(None) => break,
                Err(error) => {
                    seen.push(Err(error));
                    return seen;
                }
            }
        }
    }
    seen
}

#[test]
fn an_element_that_no_client_can_read_affects_only_itself() {
    let cases: [(&[u8], SkipReason); 13] = [
        (b"<message><p:x/></message>", SkipReason::Prefix),
        (b"<p:message><body>x</body></p:message>", SkipReason::Prefix),
        (b"<message><x p:y=''><message/></x>text</message>", SkipReason::Prefix),
        ("<message><x\u{220}/></message>".as_bytes(), SkipReason::Name),
        ("<message><a><b \u{2C00}=''/></a></message>".as_bytes(), SkipReason::Name),
        (b"<message><1/></message>", SkipReason::Name),
        (b"<message a='1' a='2'/>", SkipReason::Malformed),
        (b"<message><x xmlns:p='u' xmlns:q='u' p:a='' q:a=''/></message>", SkipReason::Malformed),
        (b"<message><body>\x01</body></message>", SkipReason::Malformed),
        (b"<message><body>\xFF</body></message>", SkipReason::Malformed),
        (b"<message><body>&x;</body><![CDATA[</message>]]></message>", SkipReason::Malformed),
        (b"<message><body>a & b</body><x y='/>'/></message>", SkipReason::Malformed),
        (b"<message><body>]]></body></message >", SkipReason::Malformed),
    ];
    for (xml, reason) in cases {
        for chunk in [1, 7, 1000] {
            let bytes = [b"<iq id='1'/>", xml, b"<iq id='2'/> <presence/>"].concat();
            let seen = frames(&mut framer(1 << 20, None), &bytes, chunk);
            let [Ok(Frame::Element(_)), Ok(Frame::Skipped(skipped)), Ok(Frame::Element(next)), ..] = &seen[..] else {
                panic!("{}: {seen:?}", String::from_utf8_lossy(xml));
            };
            assert_eq!((skipped.reason, skipped.bytes), (reason, xml.len() as u64), "{}", String::from_utf8_lossy(xml));
            assert_eq!(next.bytes(), "<iq id='2'/>");
            assert!(matches!(seen.last(), Some(Ok(Frame::Element(last))) if last.kind() == Kind::Presence));
        }
    }
}

#[test]
fn an_error_of_the_stream_itself_ends_it() {
    for xml in ["<message><a></b></message>", "<message><x a='<'/></message>", "<message><!DOCTYPE x>", "<!-- -->", "x"]
    {
        let seen = frames(&mut framer(1 << 20, None), xml.as_bytes(), 3);
        assert!(matches!(seen[..], [Err(_)]), "{xml}: {seen:?}");
    }
    // An end tag with another name does not end a skipped element.
    let seen = frames(&mut framer(1 << 20, None), b"<message><p:x/></iq>", 3);
    assert!(matches!(seen[..], [Err(_)]), "{seen:?}");
}

fn skipped(seen: &[Result<Frame, FrameError>]) -> &Skipped {
    let [Ok(Frame::Skipped(skipped)), Ok(Frame::Element(next))] = seen else { panic!("{seen:?}") };
    assert_eq!(next.kind(), Kind::Presence);
    skipped
}

#[test]
fn an_element_that_is_too_large_is_skipped_in_bounded_memory() {
    let large = "x".repeat(1 << 20);
    for start in
        ["<message id='1'><body>", "<message id='1' a='", "<message id='1'><![CDATA[", "<message id='1'><a b='"]
    {
        let end = match start.chars().last().unwrap() {
            '\'' if start.contains("<a ") => "'/></message>",
            '\'' => "'/>",
            '[' => "]]></message>",
            _ => "</body></message>",
        };
        let xml = format!("{start}{large}{end}");
        let mut framer = framer(20_000, None);
        let mut seen = Vec::new();
        for part in format!("{xml}<presence/>").as_bytes().chunks(1000) {
            seen.append(&mut frames(&mut framer, part, 1000));
            assert!(framer.buffer().len() <= 21_000 && framer.memory() < 128 << 10, "{}", framer.memory());
        }
        let skipped = skipped(&seen);
        assert_eq!((skipped.reason, skipped.bytes), (SkipReason::TooLarge, xml.len() as u64), "{start}");
        assert_eq!(skipped.element.bytes(), "<message id='1'/>");
    }
}

#[test]
fn large_elements_share_their_room_and_one_that_finds_none_is_skipped() {
    let memory = Arc::new(SharedMemory::default());
    memory.update(600_000);
    let share = || Some(MemoryShare { free: 10_000, memory: Arc::clone(&memory) });
    let message = |bytes: usize| format!("<message><body>{}</body></message>", "x".repeat(bytes));
    let (mut one, mut other) = (framer(1 << 20, share()), framer(1 << 20, share()));
    // The element has begun and is incomplete. It keeps its memory.
    let begun = message(200_000);
    assert!(frames(&mut one, &begun.as_bytes()[..150_000], 1000).is_empty());
    let used = memory.used();
    assert!((150_000..=600_000).contains(&used), "{used}");
    for chunk in [1000, 1 << 20] {
        let seen = frames(&mut other, format!("{}<presence/>", message(590_000)).as_bytes(), chunk);
        assert_eq!(skipped(&seen).reason, SkipReason::NoRoom);
        assert_eq!(memory.used(), used, "a skipped element has no room any more");
    }
    // A small element needs no shared memory.
    let seen = frames(&mut other, message(9000).as_bytes(), 1000);
    assert!(matches!(seen[..], [Ok(Frame::Element(_))]));
    let seen = frames(&mut one, &begun.as_bytes()[150_000..], 1000);
    let [Ok(Frame::Element(element))] = &seen[..] else { panic!("{seen:?}") };
    let kept = element.compact();
    drop(seen);
    assert!(memory.used() >= 200_000, "it has its room as long as somebody has it");
    drop(kept);
    assert_eq!(memory.used(), 0);
}
