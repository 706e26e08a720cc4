//! Random calls on a disk that fails at any step, compared with a model.

use std::collections::{BTreeMap, HashMap};

use super::slots::{check_counts, enable_on, ended, login};
use super::*;

const NAMES: [&str; 3] = ["romeo", "juliet", "nurse"];
/// The number of calls of each account on a disk that fails.
const ROUNDS: usize = 12;

/// The expected content of a spool.
#[derive(Clone, Debug, PartialEq)]
struct ModelSpool {
    device: u64,
    owner: u64,
    last: u64,
    items: BTreeMap<u64, Spooled>,
}

/// The expected content of an account.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    account: Account,
    /// By login.
    spools: BTreeMap<u64, ModelSpool>,
    tombstones: Vec<String>,
    /// The last login.
    logins: u64,
}

#[derive(Clone, Debug)]
enum Call {
    Spool(u64, Vec<Spooled>),
    Unspool(u64, u64),
    Discard(u64, u64),
    TakeOver(u64, u64),
    AdoptShared(u64, u64),
    Change(Change),
    SaveTombstone(String),
}

/// An xorshift generator, which yields the same calls for every step.
struct RandomCalls(u64);

impl RandomCalls {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

impl Model {
    /// Returns the logins that are open, with their devices.
    fn open(&self) -> Vec<(u64, u64)> {
        let logins = |device: &crate::push::account::Device| {
            device.open.iter().map(|login| (login.0, device.id.0)).collect::<Vec<_>>()
        };
        self.account.devices.iter().flat_map(logins).collect()
    }

    fn is_open(&self, login: u64) -> bool {
        self.account.device_of(LoginId(login)).is_some()
    }

    fn choose(&self, random: &mut RandomCalls, round: usize) -> Call {
        let fresh = |resource: u64| Call::Change(login(self.logins + 1, &format!("r{resource}"), 1));
        let open = self.open();
        let Some((login, device)) = open.get(usize::try_from(random.below(open.len().max(1) as u64)).unwrap()).copied()
        else {
            return fresh(random.below(3));
        };
        let last = self.spools.get(&login).map_or(0, |spool| spool.last);
        match random.below(18) {
            0..=4 => {
                let count = 1 + random.below(4);
                let spooled = |n| Spooled {
                    seq: Seq::new(last + 1 + n),
                    received: UnixMillis::new(1),
                    shared: n % 2 == 0,
                    archived: false,
                    bytes: format!("{round} {n} {}", "x".repeat(if n == 2 { 5000 } else { 10 })).into(),
                };
                Call::Spool(login, (0..count).map(spooled).collect())
            }
            5 | 6 => Call::Unspool(login, last.saturating_sub(random.below(3))),
            7 => Call::Discard(login, 1 + random.below(last.max(1))),
            8 => Call::AdoptShared(1 + random.below(self.logins), login),
            9 | 10 => Call::TakeOver(device, login),
            11 => Call::SaveTombstone(format!("id{round}")),
            12 | 13 => fresh(random.below(3)),
            14 => Call::Change(ended(login)),
            15 | 16 => Call::Change(enable_on(device, "the phone's", 1)),
            _ if random.below(4) == 0 => Call::Change(Change::Removed),
            _ => Call::Change(Change::Seen { device: DeviceId(device), at: UnixSecs::new(round as u64) }),
        }
    }

    fn after(&self, call: &Call) -> Self {
        let mut model = self.clone();
        match call {
            Call::Spool(login, items) => {
                let device = self.account.device_of(LoginId(*login)).unwrap().0;
                let spool = model.spool(*login, device);
                spool.items.extend(items.iter().map(|item| (item.seq.get(), item.clone())));
                spool.last = items.last().unwrap().seq.get();
            }
            Call::Unspool(login, up_to) => {
                model.spools.entry(*login).and_modify(|spool| spool.items.retain(|seq, _| seq > up_to));
            }
            Call::Discard(login, place) => {
                model.spools.entry(*login).and_modify(|spool| drop(spool.items.remove(place)));
            }
            Call::TakeOver(device, to) => {
                for login in self.inheritance(*device, *to) {
                    model.spools.entry(login).and_modify(|spool| spool.owner = *to);
                }
            }
            Call::AdoptShared(from, to) => {
                let Some((spool, shared)) = self.shared(*from) else { return model };
                let device = self.account.device_of(LoginId(*to)).unwrap().0;
                model.spools.entry(spool).and_modify(|spool| spool.items.retain(|_, item| !item.shared));
                let spool = model.spool(*to, device);
                for item in shared {
                    spool.last += 1;
                    spool.items.insert(spool.last, Spooled { seq: Seq::new(spool.last), ..item });
                }
            }
            Call::SaveTombstone(id) => model.tombstones.push(id.clone()),
            Call::Change(Change::Removed) => return Self { logins: self.logins, ..Self::default() },
            Call::Change(change) => model.change(change),
        }
        model
    }

    fn spool(&mut self, login: u64, device: u64) -> &mut ModelSpool {
        self.spools.entry(login).or_insert(ModelSpool { device, owner: login, last: 0, items: BTreeMap::new() })
    }

    fn change(&mut self, change: &Change) {
        let device = self.account.apply(change.clone());
        if let Change::Login { login, .. } = change {
            self.logins = login.0;
        }
        if let (Change::Enable { registration, .. }, Some(known)) = (change, device) {
            self.spools
                .values_mut()
                .filter(|spool| spool.device == registration.device.0)
                .for_each(|p| p.device = known.0);
        }
    }

    /// Returns the spools that a session takes over.
    fn inheritance(&self, device: u64, to: u64) -> Vec<u64> {
        let free = |(login, spool): &(&u64, &ModelSpool)| {
            let owner = spool.owner;
            spool.device == device && **login != to && !spool.items.is_empty() && (owner == to || !self.is_open(owner))
        };
        self.spools.iter().filter(free).map(|(login, _)| *login).collect()
    }

    /// Returns the first spool of a device that no session owns and that has shared stanzas, with those stanzas.
    fn shared(&self, device: u64) -> Option<(u64, Vec<Spooled>)> {
        let closed =
            self.spools.iter().filter(|(l, p)| p.device == device && !self.is_open(**l) && !self.is_open(p.owner));
        let mut shared = closed.map(|(login, spool)| {
            (*login, spool.items.values().filter(|item| item.shared).cloned().collect::<Vec<_>>())
        });
        shared.find(|(_, items)| !items.is_empty())
    }
}

async fn call(store: &Store, name: &str, model: &Model, call: &Call) -> Result<(), StoreError> {
    let spool = |login: u64| SpoolId { account: account(name), login: LoginId(login) };
    match call {
        // Its session may not know which device its own turned out to be.
        Call::Spool(login, items) => store.spool(&spool(*login), DeviceId(0), items.clone()).await,
        Call::Unspool(login, up_to) => store.unspool(&spool(*login), Seq::new(*up_to)).await,
        Call::Discard(login, place) => store.discard(&spool(*login), vec![Seq::range(*place..=*place)]).await,
        Call::TakeOver(device, to) => {
            let inherited = store.take_over(&account(name), DeviceId(*device), LoginId(*to)).await?;
            let expected: Vec<_> = model.inheritance(*device, *to);
            assert_eq!(inherited.iter().map(|i| i.spool.0).collect::<Vec<_>>(), expected);
            for InheritedSpool { spool, backlog } in inherited {
                assert_eq!(backlog.count, model.spools[&spool.0].items.len() as u64);
            }
            Ok(())
        }
        Call::AdoptShared(from, to) => {
            let last = model.spools.get(to).map_or(0, |spool| spool.last);
            let device = model.account.device_of(LoginId(*to)).unwrap();
            let (to, places) = (spool(*to), Seq::new(last + 1)..=Seq::MAX);
            let moved = store.adopt_shared(&to.account, DeviceId(*from), &to, device, places).await?;
            assert_eq!(moved, model.shared(*from).map_or(0, |(_, items)| items.len() as u64));
            Ok(())
        }
        Call::Change(change) => {
            let (account, _) = store.change(&account(name), change.clone()).await?;
            assert_eq!(account, model.after(&Call::Change(change.clone())).account);
            Ok(())
        }
        Call::SaveTombstone(id) => {
            let tombstone = Tombstone { account: account(name), device: DeviceId(1), h: 1, at: UnixSecs::new(1) };
            store.save_tombstone(&format!("{name} {id}"), tombstone).await
        }
    }
}

/// The states in which an account may be found: the one that was promised, and the one that was asked for.
struct Promise {
    states: Vec<Model>,
    /// For each login, the number up to which the stanzas of its spool were deleted, though perhaps not on disk.
    fading: HashMap<u64, u64>,
    /// The number of times that a device turned out to be another while stanzas waited for it, that a session took over a
    /// spool, and that another device adopted stanzas.
    merges: usize,
    inherited: usize,
    adopted: usize,
}

impl Promise {
    fn new() -> Self {
        Self { states: vec![Model::default()], fading: HashMap::new(), merges: 0, inherited: 0, adopted: 0 }
    }
}

/// Makes calls for several accounts at once, until the disk fails. Before every third round the file is compacted, while
/// nothing is written.
async fn play(store: &Store, seed: u64, rounds: usize) -> [Promise; 3] {
    let mut random = RandomCalls(seed);
    let mut promises = NAMES.map(|_| Promise::new());
    for round in 0..rounds {
        if round % 3 == 2 {
            let renewed = store.disk().compact(&mut |_| true);
            assert!(renewed.as_ref().is_ok_and(|done| *done) || matches!(renewed, Err(StoreError::Database(_))));
        }
        let models = promises.each_ref().map(|promise| promise.states[0].clone());
        let calls = models.each_ref().map(|model| model.choose(&mut random, round));
        let [a, b, c] = NAMES;
        let answers = tokio::join!(
            call(store, a, &models[0], &calls[0]),
            call(store, b, &models[1], &calls[1]),
            call(store, c, &models[2], &calls[2]),
        );
        let mut failed = false;
        for (n, answer) in [answers.0, answers.1, answers.2].into_iter().enumerate() {
            let after = models[n].after(&calls[n]);
            match &calls[n] {
                Call::Change(Change::Enable { .. }) => {
                    let devices = |m: &Model| m.spools.values().map(|p| (p.device, p.items.len())).collect::<Vec<_>>();
                    promises[n].merges += usize::from(devices(&models[n]) != devices(&after));
                }
                Call::TakeOver(device, to) => {
                    promises[n].inherited += usize::from(!models[n].inheritance(*device, *to).is_empty());
                }
                Call::AdoptShared(from, _) => promises[n].adopted += usize::from(models[n].shared(*from).is_some()),
                Call::Spool(..) | Call::Unspool(..) | Call::Discard(..) | Call::Change(_) | Call::SaveTombstone(_) => {}
            }
            match (answer, &calls[n]) {
                (Ok(()), Call::Unspool(login, up_to)) => {
                    let fading = promises[n].fading.entry(*login).or_default();
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

/// Returns the state of an account, without stanzas that were deleted but may still be there.
async fn find(store: &Store, name: &str, promise: &Promise) -> Model {
    let mut found = Model { account: store.account(&account(name)).await.unwrap(), ..Model::default() };
    let rows = store.disk().with(|database| Ok(super::rows(database))).unwrap();
    for (spool, row) in rows.into_iter().filter(|(spool, _)| spool.account == account(name)) {
        let fading = promise.fading.get(&spool.login.0).copied().unwrap_or(0);
        let items = store.spooled(&spool, Seq::ZERO, usize::MAX).await.unwrap();
        assert!(items.is_sorted_by(|a, b| a.seq < b.seq));
        let items: BTreeMap<_, _> =
            items.into_iter().filter(|item| item.seq.get() > fading).map(|item| (item.seq.get(), item)).collect();
        if !items.is_empty() {
            let last = store.shared.counts.of(&spool).backlog.last_seq.get();
            let (device, owner) = (row.device.0, row.owner.0);
            found.spools.insert(spool.login.0, ModelSpool { device, owner, last, items });
        }
    }
    let graves = |database: &Database| {
        let buried = database.begin_read()?.open_table(schema::ACCOUNT_TOMBSTONES)?;
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
    for id in store.disk().with(graves).unwrap() {
        assert_eq!(store.tombstone(&id).await.unwrap().unwrap().account, account(name));
        found.tombstones.push(id.split_once(' ').unwrap().1.to_owned());
    }
    found.tombstones.sort();
    found
}

/// Compares what the store has with the promises. After a restart, the last number of a spool to which no session adds any
/// more is that of its last stanza.
async fn verify(store: Store, promises: &[Promise; 3], step: usize, is_restarted: bool) {
    for (name, promise) in NAMES.into_iter().zip(promises) {
        let mut found = find(&store, name, promise).await;
        let mut states = promise.states.clone();
        for state in &mut states {
            state.tombstones.sort();
            state.spools.retain(|_, spool| !spool.items.is_empty());
            state.logins = 0;
        }
        for state in states.iter_mut().chain([&mut found]).filter(|_| is_restarted) {
            state.spools.values_mut().for_each(|spool| spool.last = *spool.items.last_key_value().unwrap().0);
        }
        assert!(states.contains(&found), "step {step}: {name} has {found:?}, not any of {states:?}");
    }
    check_counts(&store);
    let spool = SpoolId { account: account("romeo"), login: store.next_login() };
    store.spool(&spool, DeviceId(1), super::slots::items([1])).await.unwrap();
}

/// Runs the calls once for every `stride`th step as the failing one.
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
            verify(TestDisk::new(bytes, usize::MAX).store().unwrap(), &promises, step, true).await;
        }
        if disk.is_well() {
            assert!(promises.iter().all(|promise| promise.states.len() == 1));
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
async fn what_was_promised_of_the_spool_survives_a_failing_disk_with_other_calls() {
    crash(17, 7).await;
}

#[tokio::test]
async fn calls_in_any_order_do_what_a_model_of_the_store_says() {
    let (mut merges, mut inherited, mut adopted) = (0, 0, 0);
    for seed in 1..=12 {
        let disk = TestDisk::new(Vec::new(), usize::MAX);
        let store = disk.store().unwrap();
        let promises = play(&store, seed * 0x9e37_79b9, 90).await;
        for promise in &promises {
            merges += promise.merges;
            inherited += promise.inherited;
            adopted += promise.adopted;
        }
        verify(store, &promises, 0, false).await;
    }
    let counts = (merges, inherited, adopted);
    assert!(merges > 10 && inherited > 10 && adopted > 5, "only {counts:?} were tried");
}
