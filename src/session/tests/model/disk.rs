//! The disk: it does one thing after the other, each in two half steps, a commit and its answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;

use super::super::super::queue::Spooled;
use super::super::super::{Source, Stored, Token};
use super::oracle::number;
use super::*;
use crate::push::account::Change;

/// What the session asked for.
#[derive(Debug)]
pub(super) enum Job {
    Store(Option<Token>, Change),
    Spool(Vec<Spooled>),
    Unspool(RangeInclusive<u64>),
    Load(u64, usize),
    Adopt(Source, RangeInclusive<u64>),
    Bury(String, u32),
}

/// What survives a crash, and what is on its way there.
pub(super) struct Disk {
    pub(super) account: Account,
    /// What waits for the device, and the numbers of those stanzas.
    pub(super) slot: BTreeMap<u64, (Option<usize>, Spooled)>,
    /// What waits for another device of the account.
    pub(super) others: Vec<Spooled>,
    pub(super) last_seq: u64,
    pub(super) tombstones: HashMap<String, u32>,
    pub(super) full: bool,
    /// Deleted lazily: a crash may bring it back.
    fading: BTreeMap<u64, (Option<usize>, Spooled)>,
    jobs: VecDeque<Job>,
    /// Committed, not answered.
    answers: Vec<Input>,
    /// The last place that the session handed over.
    pub(super) handed_over: u64,
    /// What was on its way to the disk at the last crash.
    pub(super) died_with: Vec<usize>,
}

impl Disk {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            slot: BTreeMap::new(),
            others: Vec::new(),
            last_seq: 0,
            tombstones: HashMap::new(),
            full: false,
            fading: BTreeMap::new(),
            jobs: VecDeque::new(),
            answers: Vec::new(),
            handed_over: 0,
            died_with: Vec::new(),
        }
    }

    /// Numbers of stanzas that are on disk.
    pub(super) fn has(&self) -> impl Iterator<Item = usize> {
        let others = self.others.iter().filter_map(|item| number(str_of(&item.bytes)));
        self.slot.values().filter_map(|(n, _)| *n).chain(others)
    }

    /// Numbers of stanzas that are on their way to the disk.
    pub(super) fn expects(&self) -> impl Iterator<Item = usize> {
        let spools = self.jobs.iter().filter_map(|job| if let Job::Spool(items) = job { Some(items) } else { None });
        spools.flatten().filter_map(|item| number(str_of(&item.bytes)))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.answers.is_empty()
    }

    pub(super) fn crash(&mut self, revives: bool) {
        self.died_with = self.expects().collect();
        self.jobs.clear();
        self.answers.clear();
        self.full = false;
        let fading = std::mem::take(&mut self.fading);
        if revives {
            self.slot.extend(fading);
        }
    }

    fn spool(&mut self, items: Vec<Spooled>) -> Input {
        let last = items.last().unwrap().seq;
        if std::mem::take(&mut self.full) {
            return Input::SpoolFailed;
        }
        self.fading.clear();
        self.last_seq = last;
        for item in items {
            let n = number(str_of(&item.bytes));
            self.slot.insert(item.seq, (n, item));
        }
        Input::Spooled(last)
    }

    fn unspool(&mut self, places: &RangeInclusive<u64>) {
        let gone: BTreeMap<_, _> = self.slot.range(places.clone()).map(|(k, v)| (*k, v.clone())).collect();
        self.slot.retain(|seq, _| !places.contains(seq));
        if *places.end() != u64::MAX {
            self.fading.extend(gone);
        }
    }

    fn load(&self, after: u64, weight: usize) -> Vec<Spooled> {
        let (mut items, mut left) = (Vec::new(), weight);
        for (_, item) in self.slot.range(after + 1..).map(|(_, found)| found) {
            if !items.is_empty() && item.weight() > left {
                break;
            }
            left = left.saturating_sub(item.weight());
            items.push(item.clone());
        }
        items
    }

    /// An iq was meant for the session that it was sent to.
    fn adopt(&mut self, source: Source, places: &RangeInclusive<u64>, base: u64) -> usize {
        let moving: Vec<Spooled> = match source {
            Source::Earlier => {
                let later = self.slot.split_off(&base);
                let earlier = std::mem::replace(&mut self.slot, later);
                earlier.into_values().map(|(_, item)| item).collect()
            }
            Source::Others { registered: false } => std::mem::take(&mut self.others),
            Source::Others { registered: true } => Vec::new(),
        };
        self.fading.clear();
        let moving = moving.into_iter().filter(|item| !item.bytes.starts_with(b"<iq"));
        let mut moved = 0;
        for (seq, item) in places.clone().zip(moving) {
            let n = number(str_of(&item.bytes));
            self.slot.insert(seq, (n, Spooled { seq, ..item }));
            self.last_seq = self.last_seq.max(seq);
            moved += 1;
        }
        moved
    }
}

impl World {
    pub(super) fn ask_disk(&mut self, output: Output) {
        self.say(|| format!("session: {output:?}"));
        let job = match output {
            Output::Store(token, change) => Job::Store(token, *change),
            Output::Spool(items) => {
                self.check_places(&items);
                count(&self.coverage.overflows);
                match self.disk.jobs.back_mut() {
                    // What waits to be spooled goes in one transaction.
                    Some(Job::Spool(waiting)) => return waiting.extend(items),
                    _ => Job::Spool(items),
                }
            }
            Output::Unspool(places) => Job::Unspool(places),
            Output::Load(after, weight) => Job::Load(after, weight),
            Output::Adopt(source, places) => Job::Adopt(source, places),
            Output::Bury(id, h) => {
                let id = id.as_str().to_owned();
                self.check_told(h.get(), "tombstone");
                self.life.resumable = self.life.resumable.take().filter(|resumable| *resumable != id);
                Job::Bury(id, h.get())
            }
            Output::ToClient(_)
            | Output::ReplyToClient(_)
            | Output::ToUpstream(_)
            | Output::ReplyToUpstream(_)
            | Output::Resumable(_)
            | Output::Wake(_)
            | Output::Publish(_)
            | Output::Carried(..)
            | Output::Elsewhere(_)
            | Output::Answered
            | Output::CloseClient(_)
            | Output::Event(_)
            | Output::End(_) => unreachable!("the disk is not asked for {output:?}"),
        };
        self.disk.jobs.push_back(job);
    }

    /// Oracle 5: places ascend, also beyond what was handed over before.
    fn check_places(&mut self, items: &[Spooled]) {
        let handed_over = self.disk.handed_over.max(self.disk.last_seq);
        let first = items.first().map_or(0, |item| item.seq);
        let ascend = items.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        self.check(ascend && first > handed_over, || format!("places behind {handed_over} do not ascend: {items:?}"));
        self.disk.handed_over = items.last().map_or(handed_over, |item| item.seq);
    }

    /// Half a step.
    pub(super) fn disk_works(&mut self) {
        if !self.disk.answers.is_empty() {
            for answer in std::mem::take(&mut self.disk.answers) {
                self.say(|| format!("disk: {answer:?}"));
                self.handle(answer);
            }
            return self.wake();
        }
        let Some(job) = self.disk.jobs.pop_front() else { return };
        self.say(|| format!("disk does: {job:?}"));
        let answers = match job {
            Job::Store(token, change) => {
                let device = self.disk.account.apply(change);
                let changed = Input::Changed(Some(self.disk.account.clone()));
                let stored = token.map(|token| Input::Stored(token, Stored::Durable(device)));
                [changed].into_iter().chain(stored).collect()
            }
            Job::Spool(items) => {
                let behind = items.first().map_or(0, |item| item.seq) > self.disk.last_seq;
                self.check(behind, || "a place is taken".into());
                let answer = self.disk.spool(items);
                if matches!(answer, Input::SpoolFailed) {
                    self.excuse_failed_spool();
                }
                vec![answer]
            }
            Job::Unspool(places) => {
                self.disk.unspool(&places);
                Vec::new()
            }
            Job::Load(after, weight) => {
                count(&self.coverage.loads);
                vec![Input::Loaded(self.disk.load(after, weight))]
            }
            Job::Adopt(source, places) => {
                let moved = self.disk.adopt(source, &places, self.life.base);
                let others = matches!(source, Source::Others { .. });
                for _ in 0..moved {
                    count(if others { &self.coverage.orphans } else { &self.coverage.adoptions });
                }
                vec![Input::Spooled(*places.end())]
            }
            Job::Bury(id, h) => {
                self.disk.tombstones.insert(id, h);
                Vec::new()
            }
        };
        self.disk.answers = answers;
    }

    pub(super) fn disk_catches_up(&mut self) {
        while !self.disk.is_idle() && self.broken.is_none() {
            self.disk_works();
        }
    }

    /// A message to the account, for a device that has no session.
    pub(super) fn wait_for_another_device(&mut self) {
        let n = self.handed.len();
        let xml = format!("<message from='romeo@example.net/x' id='s{n}'><body>orphan</body></message>");
        self.handed.push(Handed::orphan());
        self.open.insert(n);
        let received = u64::try_from(self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let item = Spooled { seq: 0, received, shared: true, archived: false, bytes: Bytes::from(xml) };
        self.disk.others.push(item);
    }
}
