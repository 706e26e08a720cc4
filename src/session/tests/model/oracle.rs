//! The properties that the model checks after every step and at the end.

use std::collections::HashSet;

use super::*;
use crate::session::marks::is_set_aside;

/// A numbered stanza for the client, and where it is.
#[derive(Debug)]
pub(super) struct Handed {
    /// The life in which the server sent it. `None` for a stanza that waited for another device.
    pub(super) life: Option<u32>,
    /// Its number on the upstream leg.
    pub(super) server_seq: Option<u64>,
    /// The time at which the session received it.
    pub(super) fed: Option<Instant>,
    /// True if it was sent after the client's presence.
    pub(super) after_presence: bool,
    /// The stanza as the server or another session sent it.
    pub(super) xml: String,
    /// True if the session that had it ended too late to keep the order.
    pub(super) late: bool,
    /// True if the client has acknowledged it.
    pub(super) acked: bool,
    /// True if the server's connection broke before it was acknowledged.
    pub(super) kept: bool,
    /// The life in which the server sent it a second time.
    pub(super) again: Option<u32>,
    /// True if the client has read it, in any life.
    pub(super) read: bool,
    /// True if it was returned to its sender.
    pub(super) returned: bool,
    /// The life that inherited it from an older session and must deliver it before later stanzas.
    pub(super) inherited_by: Option<u32>,
}

impl Handed {
    pub(super) fn orphan() -> Self {
        Self {
            life: None,
            server_seq: None,
            fed: None,
            after_presence: true,
            xml: String::new(),
            late: false,
            acked: false,
            kept: false,
            again: None,
            read: false,
            returned: false,
            inherited_by: None,
        }
    }
}

/// A stanza of the client that the session received.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) id: usize,
    /// True if the session itself answers it.
    pub(super) consumed: bool,
    /// Its number among the stanzas on the upstream leg.
    pub(super) index: Option<u64>,
}

/// Returns the number of a numbered stanza: `id='s17'`, or `n='s17'` in the answer to an iq.
pub(super) fn number(xml: &str) -> Option<usize> {
    numbered(xml, "='s")
}

/// Returns the number of a stanza of the client: `id='c17'`.
pub(super) fn client_number(xml: &str) -> Option<usize> {
    numbered(xml, "='c")
}

fn numbered(xml: &str, before: &str) -> Option<usize> {
    xml.match_indices(before).find_map(|(at, _)| xml[at + before.len()..].split_once('\'')?.0.parse().ok())
}

pub(super) fn attr<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let at = xml.find(&format!(" {name}='"))? + name.len() + 3;
    Some(xml[at..].split_once('\'')?.0)
}

pub(super) fn is_stanza(xml: &str) -> bool {
    ["<message", "<presence", "<iq"].iter().any(|start| xml.starts_with(start))
}

impl World {
    // To the client

    pub(super) fn written_to_client(&mut self, xml: String) {
        self.say(|| format!("session → client: {xml}"));
        let Some(conn) = self.life.attached else {
            return self.check(false, || format!("written to a client that is not there: {xml}"));
        };
        if let Some(h) = attr(&xml, "h").filter(|_| xml.starts_with("<a ") || xml.starts_with("<resumed ")) {
            self.check_h(h.parse().unwrap(), &xml);
            if xml.starts_with("<resumed ") {
                self.check_patience();
            }
        }
        let returned = number(&xml).is_some_and(|n| self.handed[n].returned);
        self.check(!returned, || format!("written to the client after it was returned: {xml}"));
        self.client.receive(conn, xml);
    }

    /// Oracle 3: an `h` covers only what the server has confirmed, and never decreases.
    pub(super) fn check_h(&mut self, h: u32, xml: &str) {
        let (h, before) = (u64::from(h), self.life.last_h);
        let Some(at) = self.life.enabled_at else {
            return self.check(false, || format!("{xml} before <enable/>"));
        };
        self.check(h >= before, || format!("{xml} after {before}"));
        let counted = &self.life.fed[at..];
        let h_len = usize::try_from(h).unwrap();
        let confirmed = self.life.leg.confirmed;
        let covered = counted.iter().take(h_len);
        let early = covered.filter(|f| !f.consumed && f.index.is_none_or(|index| index > confirmed)).count();
        let total = counted.len();
        self.check(h_len <= total, || format!("{xml} after {total} stanzas of the client"));
        self.check(early == 0, || format!("{xml} covers {early} stanzas that the server has not confirmed"));
        self.life.last_h = h;
    }

    /// Handles a server that was too slow to confirm the client's stanzas: the client sends them again, under the same
    /// numbers.
    fn check_patience(&mut self) {
        let counted = usize::try_from(self.life.last_h).unwrap() + self.life.enabled_at.unwrap_or_default();
        let unconfirmed: Vec<usize> = self.life.fed.drain(counted..).map(|fed| fed.id).collect();
        if !unconfirmed.is_empty() {
            count(&self.coverage.impatient_resumptions);
        }
        for id in unconfirmed {
            self.client.may_double(id);
        }
    }

    /// Checks a numbered stanza that the client reads: once per life, in order, without a gap, and the backlog before
    /// new stanzas.
    pub(super) fn read_number(&mut self, n: usize, life: u32) {
        let fresh = self.handed[n].life == Some(life);
        self.handed[n].read = true;
        if life != self.life.number {
            return;
        }
        let handed = &self.handed[n];
        let again = self.life.reads.contains(&n) || handed.acked && handed.again == Some(life);
        self.check(!again, || format!("s{n} is read twice"));
        self.life.reads.push(n);
        if fresh {
            while self.life.sent.get(self.life.next).is_some_and(|next| *next != n && self.was_shed(*next)) {
                self.life.next += 1;
            }
            let expected = self.life.sent.get(self.life.next).copied();
            self.check(expected == Some(n), || format!("s{n} is read where {expected:?} is expected"));
            self.life.next += 1;
            self.life.backlog_is_over |= self.handed[n].after_presence;
        } else if self.handed[n].inherited_by == Some(life) {
            let newest = self.life.reads.iter().copied().filter(|read| self.handed[*read].life == Some(life)).max();
            self.check(newest.is_none_or(|newest| newest < n), || format!("inherited s{n} is read behind {newest:?}"));
        } else if self.handed[n].life.is_some() && self.handed[n].after_presence && !self.handed[n].late {
            // A stanza that was sent before a presence was also before the backlog. Several sessions may have existed
            // at the same time: stanzas of each session are in order, and the sessions are in the order of their binds.
            let place = (self.handed[n].life, n);
            let (last, over) = (self.life.last_of_backlog, self.life.backlog_is_over);
            self.check(last.is_none_or(|last| last < place), || format!("s{n} of the backlog is read behind {last:?}"));
            self.check(!over, || format!("s{n} of the backlog is read behind what is new"));
            self.life.last_of_backlog = Some(place);
        }
    }

    /// Returns true if the client need not receive it: it was returned, or is of a kind that may be lost.
    fn was_shed(&self, n: usize) -> bool {
        self.handed[n].returned || self.life.shed && !self.open.contains(&n)
    }

    /// Records that the client has the first `reads` stanzas of those that it read in this life.
    pub(super) fn client_acked(&mut self, reads: usize) {
        // An answer that waits behind a held presence is not read yet, and may never be read. Then the spool still has
        // the stanza.
        let is_held = self.session.as_ref().is_some_and(|session| session.held_bytes() > 0);
        for at in self.life.acked..reads {
            self.open.remove(&self.life.reads[at]);
            self.handed[self.life.reads[at]].acked |= !is_held;
        }
        self.life.acked = self.life.acked.max(reads);
    }

    // To the server

    pub(super) fn written_upstream(&mut self, xml: String) {
        self.say(|| format!("session → server: {xml}"));
        let leg = &mut self.life.leg;
        let (alive, closed) = (leg.alive, leg.footer);
        // The session answers the server's footer.
        self.check(alive || xml == "</stream:stream>", || format!("written to a server that is gone: {xml}"));
        self.check(!closed, || format!("written behind the footer: {xml}"));
        let leg = &mut self.life.leg;
        if is_stanza(&xml) {
            leg.written += 1;
            let index = leg.written;
            self.note_returned(&xml);
            if let Some(id) = client_number(&xml) {
                let fed = self.life.fed.iter_mut().find(|fed| fed.id == id && fed.index.is_none());
                let known = fed.map(|fed| fed.index = Some(index)).is_some();
                self.check(known, || format!("the client did not send {xml}"));
            }
        } else if xml.starts_with("<a ") {
            let h = attr(&xml, "h").unwrap().parse().unwrap();
            self.check_settled(h);
        }
        let leg = &mut self.life.leg;
        leg.footer |= xml == "</stream:stream>";
        leg.inbox.push_back(xml);
    }

    /// Oracle 2: the client or the disk has everything that is acknowledged to the server.
    fn check_settled(&mut self, h: u64) {
        let before = self.life.leg.acked;
        self.check(h >= before, || format!("h={h} to the server after {before}"));
        let fed = self.life.leg.fed;
        self.check(h <= fed, || format!("h={h} to the server, which sent {fed}"));
        self.life.leg.acked = h;
        let durable: BTreeSet<usize> = self.disk.has().collect();
        let reported_lost = |output: &Output| {
            let Output::Event(event) = output else { return 0 };
            if let Event::Shed(shed) = &**event { shed.lost } else { 0 }
        };
        let counted = |session: &Session| {
            session.device.delivery().unreported().lost + session.effects.iter().map(reported_lost).sum::<u32>()
        };
        let lost = self.lost + self.session.as_ref().map_or(0, |session| usize::try_from(counted(session)).unwrap());
        let life = Some(self.life.number);
        let covered = |n: &&usize| {
            let handed = &self.handed[**n];
            handed.life == life && handed.server_seq.is_some_and(|server_seq| server_seq <= h)
        };
        let unsafe_ones: Vec<usize> =
            self.open.iter().filter(covered).filter(|n| !durable.contains(n)).copied().collect();
        self.check(unsafe_ones.len() <= lost, || {
            format!("h={h} to the server covers what neither client nor disk has: {unsafe_ones:?}")
        });
    }

    /// Ends the upstream leg. The server sends elsewhere what was not acknowledged to it.
    pub(super) fn resolve_leg(&mut self, reads: bool) {
        if !self.life.leg.alive {
            return;
        }
        if reads {
            self.server_reads(usize::MAX);
        }
        if !self.life.leg.alive {
            return;
        }
        self.life.leg.alive = false;
        self.life.leg.wire.clear();
        let (life, acked) = (Some(self.life.number), self.life.leg.acked_read);
        let unacked = |n: &&usize| {
            let handed = &self.handed[**n];
            handed.life == life
                && (handed.fed.is_none() || handed.server_seq.is_some_and(|server_seq| server_seq > acked))
        };
        let elsewhere: Vec<usize> = self.open.iter().filter(unacked).copied().collect();
        self.say(|| format!("server: acked up to {acked}, elsewhere: {elsewhere:?}"));
        for n in elsewhere {
            count(&self.coverage.re_routed);
            self.open.remove(&n);
        }
    }

    /// Breaks the upstream leg without notice. A server that was killed sends nothing again. One that still runs sends
    /// again what was not acknowledged to it, and what the session never received.
    pub(super) fn break_leg(&mut self, killed: bool) {
        let leg = &mut self.life.leg;
        leg.alive = false;
        leg.wire.clear();
        let (life, acked) = (Some(self.life.number), leg.acked);
        let concerned = self.open.iter().copied().filter(|n| {
            let handed = &self.handed[*n];
            handed.life == life
                && (handed.fed.is_none() || handed.server_seq.is_some_and(|server_seq| server_seq > acked))
        });
        for n in concerned.collect::<Vec<_>>() {
            if self.has_no_room_for(n) {
                self.handed[n].fed = None;
            }
            let handed = &self.handed[n];
            let (had, message) = (handed.fed.is_some(), handed.xml.starts_with("<message"));
            // Stanzas that are not counted are lost with the connection.
            let lost = killed || handed.server_seq.is_none();
            if lost && !had || !message {
                self.open.remove(&n);
            } else if killed {
                count(&self.coverage.kept);
                self.handed[n].kept = true;
            } else {
                self.handed[n].kept = had;
                count(&self.coverage.agains);
                self.again.push(n);
            }
        }
        let again = self.again.clone();
        self.say(|| format!("the leg breaks: acked up to {acked}, again: {again:?}"));
    }

    /// Returns true if a session that has given everything back has no room for this stanza, which came later.
    fn has_no_room_for(&self, n: usize) -> bool {
        let session = self.session.as_ref().filter(|session| session.gives_back());
        let Some(given_back) = session.and_then(|session| session.device.delivery().given_back()) else { return false };
        let is_held = given_back.messages().iter().any(|item| number(str_of(item.element.bytes())) == Some(n));
        let is_full = given_back.later() + self.handed[n].xml.len() > self.settings.session_queue;
        is_full && !is_held && self.handed[n].fed.is_some()
    }

    /// A session that ended in order leaves no request on disk: it or its server has answered them. It remembers so many of
    /// those on disk as fit into 64 KiB (`Notes`), with less than 256 bytes for each. Later ones wait for the next session.
    pub(super) fn check_requests(&mut self) {
        if self.life.ended.is_none() || self.broken.is_some() {
            return;
        }
        let own = self
            .disk
            .spools
            .range((self.disk.line.own, Seq::ZERO)..=(self.disk.line.own, Seq::MAX))
            .map(|(_, (_, item))| str_of(&item.bytes));
        let left: Vec<_> =
            own.filter(|xml| xml.starts_with("<iq") && attr(xml, "type") == Some("get")).map(str::to_owned).collect();
        let remembered = (64 << 10) / 256;
        let too_many = self.life.requests.saturating_sub(remembered);
        self.check(left.len() <= too_many, || format!("nobody answers {left:?}"));
    }

    /// Removes from the checks what a crash may lose: stanzas that no server counts, if they are new or on their way to
    /// the disk.
    pub(super) fn excuse_crash(&mut self) {
        let spool_after = self.settings.stream_management.spool_after_uncounted();
        let durable: BTreeSet<usize> = self.disk.has().collect();
        let lost: Vec<usize> = self.open.iter().filter(|n| !durable.contains(n)).copied().collect();
        for n in lost {
            let handed = &self.handed[n];
            let late = handed.fed.is_none_or(|fed| fed + spool_after < self.minded && !self.disk_was_busy(n));
            // The server no longer counts a stanza once its connection has broken.
            let late = late || handed.kept && !self.disk_was_busy(n);
            let (counted, minded) = (handed.server_seq.is_some() && !handed.kept, self.minded);
            self.check(!counted, || format!("s{n} is lost in a crash, though the server has counted it"));
            self.check(!late, || format!("s{n} is lost in a crash long after it came ({minded:?})"));
            self.open.remove(&n);
        }
        // The process ended before the returned stanzas were deleted: after a crash a stanza may arrive once more.
        for n in durable {
            self.handed[n].returned = false;
        }
    }

    /// Records an error that returns a stanza to its sender because it could not be kept.
    fn note_returned(&mut self, xml: &str) {
        let Some(n) = number(xml).filter(|_| xml.contains("<resource-constraint ")) else { return };
        count(&self.coverage.returned);
        let again = std::mem::replace(&mut self.handed[n].returned, true);
        self.check(!again, || format!("s{n} is returned twice"));
        self.open.remove(&n);
    }

    // At every step

    pub(super) fn check_step(&mut self) {
        if self.broken.is_some() {
            return;
        }
        self.check_memory();
        self.check_nothing_lost();
    }

    /// Oracle 4: bounded memory.
    fn check_memory(&mut self) {
        let Some(session) = &self.session else { return };
        let bytes: usize = session.device.delivery().queue().iter().map(|item| item.element.bytes().len() + 160).sum();
        let largest = 1000;
        let limit = self.settings.session_queue + largest;
        let unsaved = session.unsaved().bytes;
        let (paused, is_dark) = (session.is_paused(), session.is_dark() && !session.is_ending());
        self.check(bytes <= limit, || format!("{bytes} bytes wait in memory"));
        // While the client is attached, as many bytes again may have been on their way to the disk when it refused
        // them.
        let unsaved_limit = if is_dark { limit } else { limit + self.settings.session_queue };
        // Answers to the client's own requests have a bound of their own (`SpooledReplies`), 64 KiB without what is
        // counted besides for each.
        let answers = 400 * self.life.fed.iter().filter(|fed| fed.consumed).count();
        let unsaved_limit = unsaved_limit + answers.min(3 * (64 << 10));
        self.check(unsaved <= unsaved_limit, || format!("{unsaved} bytes wait in memory alone"));
        if paused {
            count(&self.coverage.pauses);
        }
    }

    /// Oracle 1: what the client has not acknowledged is on disk, in the session, or not acknowledged to the server.
    fn check_nothing_lost(&mut self) {
        if self.open.is_empty() {
            self.forget_lost(0);
            return;
        }
        let mut held: HashSet<usize> = self.disk.has().chain(self.disk.expects()).collect();
        if let Some(session) = &self.session {
            let items = session.device.delivery().queue().iter().chain(session.device.delivery().queue().in_flight());
            held.extend(items.filter_map(|item| number(str_of(item.element.bytes()))));
        }
        self.older_has(&mut held);
        held.extend(self.again.iter().filter(|n| self.handed[**n].fed.is_none()));
        let kept = |n: &usize| {
            let handed = &self.handed[*n];
            let of_life = |life: &Life| {
                let unacked = handed.server_seq.is_some_and(|server_seq| server_seq > life.leg.acked) && life.leg.alive;
                handed.life == Some(life.number) && (unacked || handed.fed.is_none())
            };
            held.contains(n) || self.lives().any(of_life)
        };
        let mut lost: Vec<usize> = self.open.iter().copied().filter(|n| !kept(n)).collect();
        // The session may lose as many as it has reported lost.
        let lost_count = lost.len().min(self.lost);
        for n in lost.drain(..lost_count) {
            self.open.remove(&n);
            self.handed[n].returned = true;
        }
        self.forget_lost(lost_count);
        self.check(lost.is_empty(), || format!("lost: {lost:?}"));
    }

    /// Subtracts lost stanzas that were found missing from those that the session reported. The rest may still be on
    /// disk until the disk has deleted them.
    fn forget_lost(&mut self, gone: usize) {
        self.lost = if self.disk.is_idle() && self.older.is_none() { 0 } else { self.lost - gone };
    }

    // At the end

    /// Lets all parties complete their work. At the end of the world, also checks that everything is settled.
    pub(super) fn catch_up(&mut self, finally: bool) {
        self.disk.refusals = 0;
        self.settle_older();
        if self.client.conn.is_none() || self.session.is_none() || self.client.is_cut() {
            self.connect(true, Hello::EnableThenPresence);
        }
        let mut owes_presence = finally;
        // The queue of a session may have room for one stanza in a round, if it is large or other sessions have the memory.
        for round in 0..150 + 2 * (self.handed.len() + self.unnumbered) {
            self.older_catches_up();
            self.disk_catches_up();
            self.server_reads(usize::MAX);
            self.wake();
            self.client_reads(usize::MAX, true);
            self.client_answers();
            if !self.client.out.is_empty() {
                self.client_asks();
            }
            self.wake();
            self.check_step();
            // A client that answers only pings is probed for less than a message only after it has been idle, unless stanzas
            // on disk wait for its answer.
            let on_disk = self.session.as_ref().is_some_and(|session| session.device.delivery().queue().has_tail());
            let probe = finally && !self.variant.client_sm && round % 10 == 9 && !on_disk;
            self.pass(if probe { Duration::from_secs(301) } else { Duration::from_millis(150) });
            if self.broken.is_some() {
                return;
            }
            self.settle_older();
            if finally && (self.session.is_none() || self.client.conn.is_none()) {
                self.connect(true, Hello::EnableThenPresence);
            } else if owes_presence && round >= 2 && self.client.is_ready() {
                owes_presence = false;
                self.client_presence("");
            } else if (round > 4 || !finally) && self.is_settled() && (self.client.out.is_empty() || !finally) {
                break;
            }
        }
        if finally {
            self.check_accounts();
        }
    }

    /// Reports that older sessions have ended or stay, if there is none in the world.
    pub(super) fn settle_older(&mut self) {
        if self.older.is_none() {
            self.handle(Input::OlderSettled);
        }
    }

    fn is_settled(&self) -> bool {
        let waits = self.session.as_ref().is_some_and(|session| {
            !session.device.delivery().queue().is_empty() || session.device.delivery().queue().has_tail()
        });
        !waits
            && self.older.is_none()
            && self.disk.is_idle()
            && self.life.leg.inbox.is_empty()
            && self.client.is_settled()
    }

    /// Returns true if the stanza is set aside because the client seems to break on it: it left soon after it was
    /// written, again and again.
    fn is_set_aside(&self, xml: &str) -> bool {
        let Some(session) = &self.session else { return false };
        let element = Element::parse(Bytes::copy_from_slice(xml.as_bytes()), &self.header).unwrap();
        is_set_aside(session.device.account().guard(), &element)
    }

    fn check_accounts(&mut self) {
        let settled = self.is_settled();
        self.check(settled, || "it does not settle".into());
        let others: BTreeSet<usize> = self.disk.others.iter().filter_map(|item| number(str_of(&item.bytes))).collect();
        let missing = self.open.iter().filter(|n| !others.contains(n) && !self.is_set_aside(&self.handed[**n].xml));
        let missing: Vec<usize> = missing.copied().collect();
        self.check(missing.is_empty(), || format!("the client has not got {missing:?}"));
        let left = self.disk.spools.iter().filter(|(_, (_, item))| !self.is_set_aside(str_of(&item.bytes)));
        let left: Vec<(LoginId, Seq)> = left.map(|(place, _)| *place).collect();
        self.check(left.is_empty(), || format!("left on disk: {left:?}"));
        let undelivered = self.life.sent.iter().skip(self.life.next).filter(|n| !self.was_shed(**n)).count();
        self.check(undelivered == 0, || format!("{undelivered} stanzas were not delivered"));
        let unacked = self.client.out.len();
        self.check(unacked == 0, || format!("{unacked} stanzas of the client are not acknowledged"));
        let [sent, read] = &self.life.contacts;
        let differ: Vec<u8> =
            (0..3).filter(|c| sent.get(c).is_some_and(|t| *t) != read.get(c).is_some_and(|r| *r)).collect();
        // Presence is not kept where neither memory nor disk has room.
        self.check(differ.is_empty() || self.life.shed, || {
            format!("the client is wrong about the presence of {differ:?}")
        });
        if self.variant.client_sm {
            let unreceived: Vec<usize> = self.client.unreceived().collect();
            self.check(unreceived.is_empty(), || format!("the server has not got {unreceived:?}"));
        }
    }

    fn disk_was_busy(&self, n: usize) -> bool {
        self.disk.died_with.contains(&n)
    }
}
