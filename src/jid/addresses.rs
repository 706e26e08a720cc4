//! Addresses of every kind, for tests. Each rule must treat all of them like plain names.

/// The addresses in one test scene.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) name: &'static str,
    /// The account, and the resource of its device.
    pub(crate) account: &'static str,
    pub(crate) resource: &'static str,
    /// Another user, with a resource.
    pub(crate) other: &'static str,
    /// A room, the nick of the account, and the nick of the other user.
    pub(crate) room: &'static str,
    pub(crate) nick: &'static str,
    pub(crate) other_nick: &'static str,
    /// A push service.
    pub(crate) service: &'static str,
}

const PLAIN: Addresses = Addresses {
    name: "plain",
    account: "juliet@capulet.example",
    resource: "phone",
    other: "romeo@montague.example/orchard",
    room: "coven@chat.example",
    nick: "juliet",
    other_nick: "firstwitch",
    service: "push.example",
};

/// The scene with each kind of address. The first one has plain addresses.
pub(crate) const ALL: [Addresses; 8] = [
    PLAIN,
    Addresses {
        name: "emoji",
        account: "juliet🦊@capulet.example",
        resource: "Phone 🦊",
        other: "Bob🦊@montague.example/Orchard 🦊",
        room: "den🦊@chat.example",
        nick: "Ana 🦊",
        other_nick: "Bob 🦊",
        service: "gw🦊@push.example",
    },
    Addresses {
        name: "Hebrew with Latin",
        account: "julietא@capulet.example",
        resource: "phone א",
        other: "אromeo@montague.example/אb",
        room: "covenא1@chat.example",
        nick: "אna",
        other_nick: "bobא",
        service: "אpush@push.example",
    },
    Addresses {
        name: "odd hyphens",
        account: "juliet@my--chat.example",
        resource: "-phone-",
        other: "romeo@mo--ntague.example/--",
        room: "coven@-chat--.example",
        nick: "--juliet",
        other_nick: "--first",
        service: "ab--gw.example",
    },
    Addresses {
        name: "percent-escaped",
        account: "juliet%40x@capulet.example",
        resource: "phone%20",
        other: "#romeo%irc.example@mont%20ague.example/a%2fb",
        room: "#coven%irc.example@ch%61t.example",
        nick: "juliet%20c",
        other_nick: "first%20witch",
        service: "p%20@push.example",
    },
    Addresses {
        name: "domain only",
        account: "capulet.example",
        other: "montague.example/orchard",
        room: "coven.chat.example",
        ..PLAIN
    },
    Addresses {
        name: "IP literal",
        account: "juliet@[2001:db8::1]",
        other: "romeo@192.0.2.7/orchard",
        room: "coven@[2001:db8::2]",
        service: "[2001:db8::3]",
        ..PLAIN
    },
    Addresses {
        name: "separators in excess",
        resource: "phone@home/1",
        other: "romeo@@montague.example/a/b@c",
        room: "coven@chat@example",
        nick: "juliet/@",
        other_nick: "@/first",
        ..PLAIN
    },
];

impl Addresses {
    /// Inserts these addresses into the text of a test. They are inserted unchanged, so none may need escaping.
    pub(crate) fn fill(&self, plain: &str) -> String {
        let pairs = [
            ("ACCOUNT", self.account),
            ("PHONE", self.resource),
            ("OTHER", self.other),
            ("BARE", self.other_bare()),
            ("ROOM", self.room),
            ("MYNICK", self.nick),
            ("HISNICK", self.other_nick),
            ("SERVICE", self.service),
        ];
        pairs.iter().fold(plain.to_owned(), |text, (word, address)| text.replace(word, address))
    }

    /// Returns the other user's address without the resource.
    pub(crate) fn other_bare(&self) -> &'static str {
        self.other.split_once('/').map_or(self.other, |(bare, _)| bare)
    }
}
