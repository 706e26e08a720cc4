//! The disk of the model's [`World`]. It runs one job after the other, each in two half steps: a commit and its answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;

use super::super::super::queue::{Inherited, Load, Spooled};
use super::super::super::{Orphans, Stored, Token};
use super::oracle::number;
use super::*;
use crate::push::account::Change;

/// A job that the session asked for.
#[derive(Debug)]
pub(super) enum Job {
    Store(Option<Token>, Change),
    Spool(Vec<Spooled>, Seq),
    Unspool(LoginId, RangeInclusive<Seq>),
    Load(LoginId, Seq, usize),
    TakeOver,
    Adopt(Orphans, RangeInclusive<Seq>),
    SaveTombstone(String, u32),
}

/// A stanza on disk, and its number.
type Item = (Option<usize>, Spooled);

/// A session's job queue for the disk. Jobs run in order.
#[derive(Default)]
pub(super) struct Line {
    /// The session that spools, and its last sequence number.
    pub(super) own: LoginId,
    pub(super) last_seq: Seq,
    /// The stanzas that the disk refused last.
    refused: Vec<usize>,
    jobs: VecDeque<Job>,
    /// Answers of jobs that are committed and not answered yet.
    answers: Vec<Input>,
    /// The last sequence number that the session handed over.
    pub(super) handed_over: Seq,
}

impl Line {
    /// Returns the numbers of the stanzas that are on their way to the disk.
    pub(super) fn expects(&self) -> impl Iterator<Item = usize> {
        // The session does not know of a refusal until its answer has come.
        let refused = self.refused.iter().copied();
        let spools = self.jobs.iter().filter_map(|job| if let Job::Spool(items, _) = job { Some(items) } else { None });
        spools.flatten().filter_map(|item| number(str_of(&item.bytes))).chain(refused)
    }
}

/// The data that survives a crash, and the jobs on their way to it.
pub(super) struct Disk {
    pub(super) account: Account,
    /// Stanzas that wait for the device, by the session that spooled them, with their numbers.
    pub(super) spools: BTreeMap<(LoginId, Seq), Item>,
    /// Stanzas that wait for another device of the account.
    pub(super) others: Vec<Spooled>,
    /// Logins whose sessions have not ended.
    pub(super) open: BTreeSet<LoginId>,
    /// The job queue of the session that acts.
    pub(super) line: Line,
    pub(super) tombstones: HashMap<String, u32>,
    /// Number of spool jobs that the disk still refuses.
    pub(super) refusals: u8,
    /// Stanzas that are deleted lazily: a crash may bring them back.
    fading: BTreeMap<(LoginId, Seq), Item>,
    /// Stanzas that were on their way to the disk at the last crash.
    pub(super) died_with: Vec<usize>,
}

impl Disk {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            spools: BTreeMap::new(),
            others: Vec::new(),
            open: BTreeSet::new(),
            line: Line::default(),
            tombstones: HashMap::new(),
            refusals: 0,
            fading: BTreeMap::new(),
            died_with: Vec::new(),
        }
    }

    /// Returns the numbers of the stanzas that are on disk.
    pub(super) fn has(&self) -> impl Iterator<Item = usize> {
        let others = self.others.iter().filter_map(|item| number(str_of(&item.bytes)));
        self.spools.values().filter_map(|(n, _)| *n).chain(others)
    }

    /// Returns the numbers of the stanzas that are on their way to the disk.
    pub(super) fn expects(&self) -> impl Iterator<Item = usize> {
        self.line.expects()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.line.jobs.is_empty() && self.line.answers.is_empty()
    }

    pub(super) fn crash(&mut self, revives: bool) {
        self.crash_line();
        self.open.clear();
        self.refusals = 0;
        let fading = std::mem::take(&mut self.fading);
        if revives {
            self.spools.extend(fading);
        }
    }

    pub(super) fn crash_line(&mut self) {
        self.died_with.extend(self.line.expects());
        self.line.jobs.clear();
        self.line.answers.clear();
    }

    fn spool(&mut self, items: Vec<Spooled>, last: Seq) -> Input {
        if !items.is_empty() && self.refusals > 0 {
            self.refusals -= 1;
            return Input::SpoolRefused;
        }
        self.fading.clear();
        self.line.last_seq = self.line.last_seq.max(last);
        for item in items {
            let n = number(str_of(&item.bytes));
            self.spools.insert((self.line.own, item.seq), (n, item));
        }
        Input::Spooled { up_to: last }
    }

    fn unspool(&mut self, login: LoginId, places: &RangeInclusive<Seq>) {
        let range = (login, *places.start())..=(login, *places.end());
        let gone: BTreeMap<_, _> = self.spools.range(range).map(|(k, v)| (*k, v.clone())).collect();
        self.spools.retain(|key, _| !gone.contains_key(key));
        if *places.start() == Seq::ZERO {
            self.fading.extend(gone);
        }
    }

    fn load(&self, login: LoginId, after: Seq, weight: usize) -> Vec<Spooled> {
        let (mut items, mut left) = (Vec::new(), weight);
        for (_, item) in self.spools.range((login, after.next())..=(login, Seq::MAX)).map(|(_, found)| found) {
            if !items.is_empty() && item.weight() > left {
                break;
            }
            left = left.saturating_sub(item.weight());
            items.push(item.clone());
        }
        items
    }

    /// Returns the spools of sessions that have ended.
    fn inherited(&self) -> Vec<Inherited> {
        let mut spools: BTreeMap<LoginId, Seq> = BTreeMap::new();
        for (login, seq) in self.spools.keys().filter(|(login, _)| !self.open.contains(login)) {
            spools.insert(*login, *seq);
        }
        spools.into_iter().map(|(spool, last_seq)| Inherited { spool, last_seq }).collect()
    }

    /// Moves the stanzas that wait for another device to the session's spool, and returns their number.
    fn adopt(&mut self, orphans: Orphans, places: &RangeInclusive<Seq>) -> usize {
        let moving = match orphans {
            Orphans::OfRegistered => Vec::new(),
            Orphans::OfUnregistered => std::mem::take(&mut self.others),
        };
        self.fading.clear();
        let mut moved = 0;
        for (seq, item) in (places.start().get()..=places.end().get()).map(Seq::new).zip(moving) {
            let n = number(str_of(&item.bytes));
            self.spools.insert((self.line.own, seq), (n, Spooled { seq, ..item }));
            self.line.last_seq = self.line.last_seq.max(seq);
            moved += 1;
        }
        moved
    }

    /// Refuses spool jobs. The session offers the refused stanzas again, and all that it handed over after them.
    fn refuse(&mut self) {
        self.line.jobs.retain(|job| !matches!(job, Job::Spool(..) | Job::Adopt(..)));
        self.line.handed_over = self.line.last_seq;
    }

    /// Adds a stanza left by a session of the device that ends now.
    pub(super) fn leave(&mut self, login: LoginId, n: usize, item: Spooled) {
        self.spools.insert((login, item.seq), (Some(n), item));
    }
}

impl World {
    pub(super) fn ask_disk(&mut self, output: Output) {
        self.say(|| format!("session: {output:?}"));
        let job = match output {
            Output::Store { token, change } => Job::Store(token, *change),
            Output::Spool(items) => {
                self.check_places(&items);
                count(&self.coverage.overflows);
                let last = items.last().map_or(Seq::ZERO, |item| item.seq);
                match self.disk.line.jobs.back_mut() {
                    // All stanzas that wait to be spooled go in one transaction.
                    Some(Job::Spool(waiting, end)) => {
                        *end = last;
                        return waiting.extend(items);
                    }
                    _ => Job::Spool(items, last),
                }
            }
            Output::Unspool { spool, places } => {
                for job in &mut self.disk.line.jobs {
                    if let (Job::Spool(waiting, _), None) = (job, spool) {
                        // These stanzas never reach the disk.
                        waiting.retain(|item| !places.contains(&item.seq));
                    }
                }
                Job::Unspool(spool.unwrap_or(self.disk.line.own), places)
            }
            Output::Load(Load { spool, after, weight }) => {
                Job::Load(spool.unwrap_or(self.disk.line.own), after, weight)
            }
            Output::TakeOver => Job::TakeOver,
            Output::Adopt { orphans, places } => Job::Adopt(orphans, places),
            Output::SaveTombstone { id, h } => {
                let id = id.as_str().to_owned();
                self.check_h(h.get(), "tombstone");
                self.life.resumable = self.life.resumable.take().filter(|resumable| *resumable != id);
                Job::SaveTombstone(id, h.get())
            }
            Output::ToClient(_)
            | Output::ReplyToClient(_)
            | Output::ToUpstream(_)
            | Output::ReplyToUpstream(_)
            | Output::Watch(_)
            | Output::Resumable(_)
            | Output::Wake(_)
            | Output::Publish(_)
            | Output::PublishedOnStream { .. }
            | Output::NotifyAbsent(_)
            | Output::BothStay
            | Output::CloseClient(_)
            | Output::Event(_)
            | Output::End(_) => unreachable!("the disk is not asked for {output:?}"),
        };
        self.disk.line.jobs.push_back(job);
    }

    /// Oracle 5: sequence numbers ascend, also beyond those handed over before.
    fn check_places(&mut self, items: &[Spooled]) {
        let handed_over = self.disk.line.handed_over.max(self.disk.line.last_seq);
        let first = items.first().map_or(Seq::ZERO, |item| item.seq);
        let ascend = items.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        self.check(ascend && first > handed_over, || format!("places behind {handed_over} do not ascend: {items:?}"));
        self.disk.line.handed_over = items.last().map_or(handed_over, |item| item.seq);
    }

    /// Does half a step.
    pub(super) fn disk_works(&mut self) {
        if !self.disk.line.answers.is_empty() {
            for answer in std::mem::take(&mut self.disk.line.answers) {
                self.say(|| format!("disk: {answer:?}"));
                if matches!(answer, Input::SpoolRefused) {
                    self.excuse_what_has_ended();
                    self.disk.refuse();
                    self.disk.line.refused.clear();
                }
                self.handle(answer);
            }
            return self.wake();
        }
        let Some(job) = self.disk.line.jobs.pop_front() else { return };
        self.say(|| format!("disk does: {job:?}"));
        let answers = match job {
            Job::Store(token, change) => {
                let device = self.disk.account.apply(change);
                let changed = Input::Changed(Some(Box::new(self.disk.account.clone())));
                let stored = token.map(|token| Input::Stored { token, stored: Stored::Durable(device) });
                [changed].into_iter().chain(stored).collect()
            }
            Job::Spool(items, last) => {
                let behind = items.first().is_none_or(|item| item.seq > self.disk.line.last_seq);
                self.check(behind, || "a place is taken".into());
                let lost: Vec<usize> = items.iter().filter_map(|item| number(str_of(&item.bytes))).collect();
                let answer = self.disk.spool(items, last);
                if matches!(answer, Input::SpoolRefused) {
                    count(&self.coverage.disk_failures);
                    self.disk.line.refused = lost;
                }
                vec![answer]
            }
            Job::Unspool(login, places) => {
                self.disk.unspool(login, &places);
                Vec::new()
            }
            Job::Load(login, after, weight) => {
                count(&self.coverage.loads);
                vec![Input::Loaded(self.disk.load(login, after, weight))]
            }
            Job::TakeOver => {
                let spools = self.disk.inherited();
                spools.iter().for_each(|_| count(&self.coverage.adoptions));
                vec![Input::TookOver(spools)]
            }
            Job::Adopt(orphans, places) => {
                let moved = self.disk.adopt(orphans, &places);
                (0..moved).for_each(|_| count(&self.coverage.orphans));
                vec![Input::Spooled { up_to: *places.end() }]
            }
            Job::SaveTombstone(id, h) => {
                self.disk.tombstones.insert(id, h);
                Vec::new()
            }
        };
        self.disk.line.answers = answers;
    }

    /// Removes from the checks the stanzas of a session that has ended, since it does not offer anything again.
    fn excuse_what_has_ended(&mut self) {
        if self.session.is_none() {
            // The relay counts and logs these.
            let mut lost = std::mem::take(&mut self.disk.line.refused);
            lost.extend(self.disk.expects());
            self.open.retain(|n| !lost.contains(n));
        }
    }

    /// Ends an older session of the device, which leaves its messages.
    pub(super) fn inherit(&mut self, count: u8) {
        let Some(session) = &self.session else { return };
        // The session gets these messages at once, or they wait for its presence.
        let at_once = session.device.backlog().is_done() && !session.device.backlog().awaits_older();
        self.life.older_sessions += 1;
        let login = LoginId(self.disk.line.own.0 - 500 + self.life.older_sessions);
        for seq in 1..=u64::from(count) {
            let n = self.handed.len();
            let xml = format!("<message from='romeo@example.net/x' type='chat' id='s{n}'><body>left</body></message>");
            let inherited_by = at_once.then_some(self.life.number);
            self.handed.push(Handed { inherited_by, xml: xml.clone(), ..Handed::orphan() });
            self.open.insert(n);
            let item =
                Spooled { seq: Seq::new(seq), received: self.wall, shared: false, archived: false, bytes: xml.into() };
            self.disk.leave(login, n, item);
        }
        super::count(&self.coverage.inherits);
        self.handle(Input::Inherit);
    }

    pub(super) fn disk_catches_up(&mut self) {
        while !self.disk.is_idle() && self.broken.is_none() {
            self.disk_works();
        }
    }

    /// Adds a message to the account for a device that has no session.
    pub(super) fn wait_for_another_device(&mut self) {
        let n = self.handed.len();
        let xml = format!("<message from='romeo@example.net/x' id='s{n}'><body>orphan</body></message>");
        self.handed.push(Handed { xml: xml.clone(), ..Handed::orphan() });
        self.open.insert(n);
        let item =
            Spooled { seq: Seq::ZERO, received: self.wall, shared: true, archived: false, bytes: Bytes::from(xml) };
        self.disk.others.push(item);
    }
}
