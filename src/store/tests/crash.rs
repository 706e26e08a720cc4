//! Everything at once on a disk that fails at any step, against a model.

use std::collections::{BTreeMap, HashMap};

use super::slots::{check_counts, enable_on, login, slot};
use super::*;

const NAMES: [&str; 3] = ["romeo", "juliet", "nurse"];
const DEVICES: std::ops::RangeInclusive<u64> = 1..=3;
/// Calls of each account on a disk that fails.
const ROUNDS: usize = 9;

/// What an account should have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    account: Account,
    slots: BTreeMap<u64, BTreeMap<u64, Spooled>>,
    last_seqs: BTreeMap<u64, u64>,
    tombstones: Vec<String>,
}

#[derive(Clone, Debug)]
enum Call {
    Spool(u64, Vec<Spooled>),
    Unspool(u64, u64),
    TakeShared(u64),
    Change(Change),
    Bury(String),
}

/// xorshift: the same calls for every step.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

impl Model {
    fn choose(&self, dice: &mut Dice, round: usize) -> Call {
        let device = 1 + dice.below(3);
        let last = self.last_seqs.get(&device).copied().unwrap_or(0);
        match dice.below(14) {
            _ if self.account.devices.is_empty() => Call::Change(login(device, &format!("r{device}"), 1)),
            0..=4 => {
                let count = 1 + dice.below(4);
                let spooled = |n| Spooled {
                    seq: last + 1 + n,
                    received: 1,
                    shared: n % 2 == 0,
                    archived: false,
                    bytes: format!("{round} {n} {}", "x".repeat(if n == 2 { 5000 } else { 10 })).into(),
                };
                Call::Spool(device, (0..count).map(spooled).collect())
            }
            5 | 6 => Call::Unspool(device, last.saturating_sub(dice.below(3))),
            7 => Call::TakeShared(device),
            8 => Call::Bury(format!("id{round}")),
            9 => Call::Change(login(device, &format!("r{device}"), 1)),
            10..=12 => Call::Change(enable_on(device, "the phone's", 1)),
            _ if dice.below(4) == 0 => Call::Change(Change::Removed),
            _ => Call::Change(Change::Seen { device: DeviceId(device), at: round as u64 }),
        }
    }

    fn after(&self, call: &Call) -> Self {
        let mut model = self.clone();
        match call {
            Call::Spool(device, items) => {
                let slot = model.slots.entry(*device).or_default();
                slot.extend(items.iter().map(|item| (item.seq, item.clone())));
                model.last_seqs.insert(*device, items.last().unwrap().seq);
            }
            Call::Unspool(device, up_to) => {
                model.slots.entry(*device).or_default().retain(|seq, _| seq > up_to);
            }
            Call::TakeShared(device) => model.slots.entry(*device).or_default().retain(|_, item| !item.shared),
            Call::Bury(id) => model.tombstones.push(id.clone()),
            Call::Change(Change::Removed) => return Self::default(),
            Call::Change(change) => model.change(change),
        }
        model
    }

    fn change(&mut self, change: &Change) {
        let device = self.account.apply(change.clone());
        if let (Change::Enable { registration, .. }, Some(known)) = (change, device)
            && registration.device != known
        {
            let before = self.last_seqs.get(&known.0).copied().unwrap_or(0);
            let moved = self.slots.remove(&registration.device.0).unwrap_or_default();
            let offset = if moved.keys().next().is_some_and(|first| *first > before) { 0 } else { before };
            let last = self.last_seqs.remove(&registration.device.0).unwrap_or(0);
            let renamed = moved.into_iter().map(|(seq, item)| (seq + offset, Spooled { seq: seq + offset, ..item }));
            self.slots.entry(known.0).or_default().extend(renamed);
            self.last_seqs.insert(known.0, before.max(offset + last));
        }
    }

    fn shared(&self, device: u64) -> Vec<Spooled> {
        self.slots.get(&device).into_iter().flat_map(BTreeMap::values).filter(|item| item.shared).cloned().collect()
    }
}

async fn call(store: &Store, name: &str, model: &Model, call: &Call) -> Result<(), StoreError> {
    match call {
        Call::Spool(device, items) => store.spool(&slot(name, *device), items.clone()).await,
        Call::Unspool(device, up_to) => store.unspool(&slot(name, *device), *up_to).await,
        Call::TakeShared(device) => {
            let taken = store.take_shared(&slot(name, *device), usize::MAX).await?;
            assert_eq!(taken, model.shared(*device));
            Ok(())
        }
        Call::Change(change) => {
            let (account, _) = store.change(&account(name), change.clone()).await?;
            assert_eq!(account, model.after(&Call::Change(change.clone())).account);
            Ok(())
        }
        Call::Bury(id) => {
            let tombstone = Tombstone { account: account(name), device: DeviceId(1), h: 1, at: 1 };
            store.bury(&format!("{name} {id}"), tombstone).await
        }
    }
}

/// What may be found of an account: the state that was promised, and the one that was asked for.
struct Promise {
    states: Vec<Model>,
    /// Up to where a device's stanzas were deleted, if perhaps not on disk.
    fading: HashMap<u64, u64>,
    /// How often a device turned out to be another while stanzas waited for it.
    merges: usize,
}

impl Promise {
    fn new() -> Self {
        Self { states: vec![Model::default()], fading: HashMap::new(), merges: 0 }
    }
}

/// Calls for several accounts at once, until the disk fails. Every third round the file is renewed first, while nothing is
/// written.
async fn play(store: &Store, seed: u64, rounds: usize) -> [Promise; 3] {
    let mut dice = Dice(seed);
    let mut promises = NAMES.map(|_| Promise::new());
    for round in 0..rounds {
        if round % 3 == 2 {
            let renewed = store.shared.disk.renew(&mut |_| true);
            assert!(renewed.as_ref().is_ok_and(|done| *done) || matches!(renewed, Err(StoreError::Database(_))));
        }
        let models = promises.each_ref().map(|promise| promise.states[0].clone());
        let calls = models.each_ref().map(|model| model.choose(&mut dice, round));
        let [a, b, c] = NAMES;
        let answers = tokio::join!(
            call(store, a, &models[0], &calls[0]),
            call(store, b, &models[1], &calls[1]),
            call(store, c, &models[2], &calls[2]),
        );
        let mut failed = false;
        for (n, answer) in [answers.0, answers.1, answers.2].into_iter().enumerate() {
            let after = models[n].after(&calls[n]);
            if let Call::Change(Change::Enable { registration, .. }) = &calls[n] {
                let waited =
                    |model: &Model| model.slots.get(&registration.device.0).is_some_and(|slot| !slot.is_empty());
                promises[n].merges += usize::from(waited(&models[n]) && !waited(&after));
                if answer.is_ok() && !after.last_seqs.contains_key(&registration.device.0) {
                    promises[n].fading.remove(&registration.device.0);
                }
            }
            match (answer, &calls[n]) {
                (Ok(()), Call::Unspool(device, up_to)) => {
                    let fading = promises[n].fading.entry(*device).or_default();
                    *fading = *up_to.max(fading);
                    promises[n].states = vec![after];
                }
                (Ok(()), Call::Change(Change::Removed)) => {
                    promises[n].states = vec![after];
                    promises[n].fading.clear();
                }
                (Ok(()), _) => promises[n].states = vec![after],
                (Err(StoreError::Database(_)), _) => {
                    promises[n].states.push(after);
                    failed = true;
                }
                (Err(error), call) => panic!("{call:?}: {error}"),
            }
        }
        if failed {
            break;
        }
    }
    promises
}

/// What is found of an account, but for what was deleted and may still be there.
async fn find(store: &Store, name: &str, promise: &Promise) -> Model {
    let mut found = Model { account: store.account(&account(name)).await.unwrap(), ..Model::default() };
    for device in DEVICES {
        let fading = promise.fading.get(&device).copied().unwrap_or(0);
        let items = store.spooled(&slot(name, device), 0, usize::MAX).await.unwrap();
        assert!(items.is_sorted_by(|a, b| a.seq < b.seq));
        let items = items.into_iter().filter(|item| item.seq > fading).map(|item| (item.seq, item));
        found.slots.insert(device, items.collect());
        found.last_seqs.insert(device, store.backlog(&slot(name, device)).await.unwrap().last_seq);
    }
    let graves = |database: &Database| {
        let buried = database.begin_read()?.open_table(tombstone::BURIED)?;
        let mut ids = Vec::new();
        for entry in redb::ReadableTable::iter(&buried)? {
            let (key, _) = entry?;
            let (owner, id) = key.value();
            if owner == account(name).as_str() {
                ids.push(id.to_owned());
            }
        }
        Ok(ids)
    };
    for id in store.shared.disk.with(graves).unwrap() {
        assert_eq!(store.tombstone(&id).await.unwrap().unwrap().account, account(name));
        found.tombstones.push(id.split_once(' ').unwrap().1.to_owned());
    }
    found.tombstones.sort();
    found
}

async fn verify(store: Store, promises: &[Promise; 3], step: usize) {
    for (name, promise) in NAMES.into_iter().zip(promises) {
        let found = find(&store, name, promise).await;
        let mut states = promise.states.clone();
        for state in &mut states {
            state.tombstones.sort();
            for device in DEVICES {
                state.slots.entry(device).or_default();
                state.last_seqs.entry(device).or_default();
            }
        }
        assert!(states.contains(&found), "step {step}: {name} has {found:?}, not any of {states:?}");
    }
    check_counts(&store);
    let last = store.backlog(&slot("romeo", 1)).await.unwrap().last_seq;
    store.spool(&slot("romeo", 1), super::slots::items([last + 1])).await.unwrap();
}

/// Plays with every so manieth step failing.
async fn crash(seed: u64, stride: usize) {
    let created = TestDisk::new(Vec::new(), usize::MAX);
    created.store().unwrap().shutdown().await;
    let empty = created.after_crash(|_| true);
    let mut step = 0;
    loop {
        let disk = TestDisk::new(empty.clone(), step);
        let promises = match disk.store() {
            Ok(store) => {
                let promises = play(&store, seed, ROUNDS).await;
                store.shutdown().await;
                promises
            }
            Err(_) => NAMES.map(|_| Promise::new()),
        };
        for bytes in disk.after_crashes() {
            verify(TestDisk::new(bytes, usize::MAX).store().unwrap(), &promises, step).await;
        }
        if disk.is_well() {
            assert!(promises.iter().all(|promise| promise.states.len() == 1));
            assert!(promises.iter().any(|promise| promise.merges > 0), "no merge was tried");
            break;
        }
        step += stride;
    }
    assert!(step > 50, "only {step} steps were tried");
}

#[tokio::test]
async fn what_was_promised_of_the_spool_outlives_a_disk_that_fails_at_any_step() {
    crash(15, 1).await;
}

#[tokio::test]
async fn what_was_promised_of_the_spool_outlives_a_disk_that_fails_at_some_step_of_another_history() {
    crash(17, 7).await;
}

#[tokio::test]
async fn calls_in_any_order_do_what_a_model_of_the_store_says() {
    let mut merges = 0;
    for seed in 1..=8 {
        let disk = TestDisk::new(Vec::new(), usize::MAX);
        let store = disk.store().unwrap();
        let promises = play(&store, seed * 0x9e37_79b9, 60).await;
        merges += promises.iter().map(|promise| promise.merges).sum::<usize>();
        verify(store, &promises, 0).await;
    }
    assert!(merges > 10, "only {merges} merges were tried");
}
