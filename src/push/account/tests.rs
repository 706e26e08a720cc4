use super::*;

fn login(candidate: u64, resource: &str, presented: Option<&str>, at: u64) -> Change {
    let presented = presented.map(str::to_owned);
    let (candidate, login) = (DeviceId(candidate), LoginId(candidate));
    Change::Login { candidate, login, resource: resource.to_owned(), agent: None, presented, at: UnixSecs::new(at) }
}

fn ended(login: u64) -> Change {
    Change::Ended { login: LoginId(login) }
}

fn target(node: &str) -> Target {
    Target { service: "push.example.net".parse().unwrap(), node: Some(node.to_owned()) }
}

fn enable(device: u64, node: &str, last_seen: u64) -> Change {
    enable_as(DeviceRecognition::Guessed, device, node, last_seen)
}

fn enable_as(recognition: DeviceRecognition, device: u64, node: &str, last_seen: u64) -> Change {
    let registration = Registration {
        target: target(node),
        options: None,
        device: DeviceId(device),
        last_seen: UnixSecs::new(last_seen),
        errors: 0,
        extensions: Default::default(),
        last_success: None,
        undelivered_since: None,
    };
    Change::Enable { registration, recognition, max_devices: 3 }
}

fn applied(changes: impl IntoIterator<Item = Change>) -> Account {
    let mut account = Account::default();
    for change in changes {
        account.apply(change);
    }
    account
}

fn ids(account: &Account) -> Vec<u64> {
    account.devices.iter().map(|d| d.id.0).collect()
}

#[test]
fn a_device_is_known_by_its_resumption_id_before_its_resource() {
    let given = |device, sm_id: &str| Change::Resumable { device: DeviceId(device), sm_id: sm_id.to_owned() };
    let mut account = applied([login(1, "a", None, 1), given(1, "one"), login(2, "b", None, 2), given(2, "two")]);
    assert_eq!(account.apply(login(3, "b", Some("one"), 3)), Some(DeviceId(1)));
    assert_eq!(account.device(DeviceId(1)).map(|d| d.resource.as_str()), Some("b"));
    assert_eq!(account.apply(login(3, "c", Some("two"), 3)), Some(DeviceId(2)));
    assert_eq!(account.apply(login(3, "d", Some("unknown"), 3)), Some(DeviceId(3)));
    assert_eq!(account.apply(login(4, "d", None, 3)), Some(DeviceId(3)));
    assert_eq!(ids(&account), [1, 2, 3]);
}

#[test]
fn a_device_is_known_by_its_user_agent_before_all_else() {
    let by_agent = |candidate: u64, name: &str, resource: &str, presented: Option<&str>| {
        let mut change = login(candidate, resource, presented, candidate);
        if let Change::Login { agent, .. } = &mut change {
            *agent = Some(name.to_owned());
        }
        change
    };
    let given = Change::Resumable { device: DeviceId(2), sm_id: "two".to_owned() };
    let mut account = applied([by_agent(1, "x", "a", None), by_agent(2, "y", "b", None), given]);
    assert_eq!(account.apply(by_agent(3, "x", "b", Some("two"))), Some(DeviceId(1)));
    assert_eq!(account.apply(by_agent(3, "z", "c", Some("two"))), Some(DeviceId(2)), "a new one, but the same phone");
    assert_eq!(account.apply(login(3, "c", None, 3)), Some(DeviceId(2)), "it need not say so each time");
    assert_eq!(account.apply(by_agent(3, "z", "d", None)), Some(DeviceId(2)));
    assert_eq!(account.apply(by_agent(3, "y", "e", None)), Some(DeviceId(3)));
    assert_eq!(ids(&account), [1, 2, 3]);
    let record = serde_json::to_string(&account).unwrap();
    assert_eq!(serde_json::from_str::<Account>(&record).unwrap(), account);
}

/// Its device is seen every day, which alone would keep the registration.
#[test]
fn a_registration_ends_if_its_service_stays_unreachable() {
    let undelivered = |at| Change::Undelivered { target: target("n"), at: UnixSecs::new(at) };
    let away = |changes: Vec<Change>| {
        let mut account = applied([login(1, "a", None, 1), enable(1, "n", 1)]);
        for change in changes {
            account.apply(change);
        }
        account.apply(Change::Seen { device: DeviceId(1), at: UnixSecs::new(100) });
        account
    };
    let ends = |mut account: Account, before| account.forget_unseen(UnixSecs::new(before)) == 1;
    let change = undelivered(10);
    assert!(!change.concerns_others());
    assert!(ends(away(vec![change.clone(), undelivered(50)]), 11));
    assert!(!ends(away(vec![change.clone(), undelivered(50)]), 10));
    assert!(!ends(away(vec![]), 11));
    let answers = [
        Change::Succeeded { target: target("n"), at: UnixSecs::new(20) },
        Change::Failed { target: target("n"), max_errors: 16 },
    ];
    for answer in answers {
        assert!(!ends(away(vec![change.clone(), answer]), 11), "the service has answered");
    }
    assert!(ends(away(vec![change.clone(), enable(1, "n", 20)]), 11), "a re-enable proves nothing");
    let mut account = away(vec![change]);
    assert!(account.knows_undelivered(&target("n")) && !account.knows_success(&target("n"), UnixSecs::new(10)));
    account.doubt_publishes();
    assert!(!account.knows_undelivered(&target("n")));
    assert_eq!(account.registrations[0].errors, 0);
}

#[test]
fn only_the_latest_resumption_ids_are_remembered() {
    let mut account = applied([login(1, "a", None, 1)]);
    for n in 0..10 {
        account.apply(Change::Resumable { device: DeviceId(1), sm_id: n.to_string() });
    }
    assert_eq!(account.device(DeviceId(1)).unwrap().sm_ids, ["6", "7", "8", "9"]);
}

#[test]
fn the_target_of_another_device_shows_that_the_two_are_one() {
    let mut account = applied([login(1, "a", None, 1), enable(1, "n", 1), login(2, "b", None, 2)]);
    account.apply(ended(1));
    assert_eq!(account.apply(enable(2, "n", 2)), Some(DeviceId(1)));
    assert_eq!(ids(&account), [1]);
    let device = account.device(DeviceId(1)).unwrap();
    assert_eq!((device.resource.as_str(), device.is_open(), device.last_seen), ("b", true, UnixSecs::new(2)));
    assert_eq!(account.owned(DeviceId(1)).count(), 1);
    account.apply(ended(2));
    assert!(!account.device(DeviceId(1)).unwrap().is_open(), "its session is known by its login, whoever it is of");
}

#[test]
fn the_guard_is_stored_with_the_device_until_it_is_released() {
    let guard = crate::push::guard::tests::with_aside(crate::push::guard::Mark(1));
    let guarded = |device| Change::Guarded { device: DeviceId(device), guard: guard.clone() };
    let mut account = applied([login(1, "a", None, 1), enable(1, "n", 1), login(2, "b", None, 2), guarded(2)]);
    assert_eq!((account.guard(DeviceId(1)), account.guard(DeviceId(2))), (None, Some(&guard)));
    // The registration shows that both ids belong to one device.
    account.apply(enable(2, "n", 2));
    assert_eq!((ids(&account), account.guard(DeviceId(1))), (vec![1], Some(&guard)));
    account.apply(guarded(9));
    account.apply(Change::Released);
    assert_eq!((ids(&account), account.guard(DeviceId(1))), (vec![1], None));
    account.apply(guarded(1));
    account.apply(Change::Guarded { device: DeviceId(1), guard: Guard::default() });
    assert_eq!(account.guard(DeviceId(1)), None);
}

/// A regression test: a device logged in again at the moment at which its earlier session recorded its end. The end was
/// recorded last, and the device counted as away although it was connected.
#[test]
fn the_end_of_a_session_says_nothing_about_another_of_the_device() {
    let mut account = applied([login(1, "a", None, 1), login(2, "a", None, 2)]);
    assert_eq!(ids(&account), [1]);
    account.apply(ended(1));
    assert!(account.device(DeviceId(1)).unwrap().is_open());
    account.apply(login(3, "a", None, 3));
    account.apply(ended(3));
    assert!(account.device(DeviceId(1)).unwrap().is_open(), "the second one goes on");
    account.apply(ended(2));
    assert!(!account.device(DeviceId(1)).unwrap().is_open());
}

/// A regression test: a device with more than 16 open logins was forgotten when the newest 16 had ended. The older ones
/// were still open, but nothing more was spooled for them.
#[test]
fn no_open_login_is_left_out_however_many_there_are() {
    let mut account = applied([login(1, "a", None, 1)]);
    for n in 2..=100 {
        account.apply(login(n, "a", None, 1));
    }
    assert_eq!(account.device(DeviceId(1)).unwrap().open.len(), 100);
    for n in 2..=100 {
        account.apply(ended(n));
    }
    assert_eq!(account.device_of(LoginId(1)), Some(DeviceId(1)));
    for n in 1000..1100 {
        account.apply(login(n, &n.to_string(), None, n));
        account.apply(ended(n));
    }
    assert!(account.device(DeviceId(1)).is_some_and(Device::is_open));
    assert_eq!(account.forget_unseen(UnixSecs::new(u64::MAX)), 0);
    assert_eq!(ids(&account), [1]);
}

#[test]
fn a_device_of_an_older_record_is_open_until_it_is_found_lost() {
    let read = |open: &str| -> Device {
        serde_json::from_str(&format!("{{\"id\":1,\"resource\":\"a\",\"last_seen\":1{open}}}")).unwrap()
    };
    for (open, is_open) in [(",\"open\":true", true), (",\"open\":false", false), ("", false), (",\"open\":[7]", true)]
    {
        assert_eq!(read(open).is_open(), is_open, "{open}");
    }
    let device = read(",\"open\":[7,8]");
    assert_eq!(serde_json::from_str::<Device>(&serde_json::to_string(&device).unwrap()).unwrap(), device);
}

#[test]
fn a_device_that_is_known_for_certain_takes_the_target_over() {
    let mut account = applied([login(1, "a", None, 1), enable(1, "n", 1), login(2, "b", None, 2)]);
    assert_eq!(account.apply(enable_as(DeviceRecognition::Certain, 2, "n", 2)), Some(DeviceId(2)));
    assert_eq!(ids(&account), [1, 2]);
    assert_eq!((account.owned(DeviceId(1)).count(), account.owned(DeviceId(2)).count()), (0, 1));
}

#[test]
fn enabling_again_resets_errors_only_with_other_options() {
    let failed = || Change::Failed { target: target("n"), max_errors: 3 };
    let mut account = applied([login(1, "a", None, 1), enable(1, "n", 1), failed(), failed()]);
    account.apply(enable(1, "n", 2));
    assert_eq!(account.registrations.first().map(|r| r.errors), Some(2));
    let mut changed = enable(1, "n", 3);
    if let Change::Enable { registration, .. } = &mut changed {
        registration.options = Some(Vec::new());
    }
    account.apply(changed);
    assert_eq!(account.registrations.first().map(|r| r.errors), Some(0));
    for _ in 0..3 {
        account.apply(failed());
    }
    assert_eq!(account.registrations, []);
}

#[test]
fn the_last_success_is_kept_to_the_minute_and_survives_enabling_again() {
    let succeeded = |at| Change::Succeeded { target: target("n"), at: UnixSecs::new(at) };
    let mut account = applied([login(1, "a", None, 1), enable(1, "n", 1)]);
    for (at, kept) in [(100, 100), (159, 100), (160, 160), (90, 160)] {
        account.apply(succeeded(at));
        assert_eq!(account.registrations.first().and_then(|r| r.last_success), Some(UnixSecs::new(kept)), "{at}");
    }
    account.apply(enable(1, "n", 2));
    assert_eq!(account.registrations.first().and_then(|r| r.last_success), Some(UnixSecs::new(160)));
}

#[test]
fn the_longest_unseen_device_is_removed_but_none_with_a_session_or_registration() {
    let mut account = applied([login(1000, "here", None, 0), login(1001, "push", None, 0)]);
    account.apply(enable(1001, "n", 0));
    account.apply(ended(1001));
    for n in 1..=100 {
        account.apply(login(n, &n.to_string(), None, n));
        account.apply(ended(n));
    }
    let kept: Vec<_> = [1000, 1001].into_iter().chain(71..=100).collect();
    assert_eq!(ids(&account), kept);
}

#[test]
fn unseen_devices_are_forgotten_unless_they_have_a_session() {
    let mut account = Account::default();
    for (device, at) in [(1, 10), (2, 10), (3, 20)] {
        account.apply(login(device, &device.to_string(), None, at));
        account.apply(enable(device, &device.to_string(), at));
    }
    account.apply(ended(1));
    account.apply(ended(3));
    assert_eq!(account.forget_unseen(UnixSecs::new(20)), 1);
    assert_eq!(ids(&account), [2, 3]);
    assert_eq!(account.registrations.len(), 2);
}

#[test]
fn tokens_are_stored_with_the_account_and_end_with_it() {
    use crate::push::fast::{IssuedToken, TokenChange, TokenMechanism, TokenRequest};

    let issue = |at| {
        let root = UnixSecs::new(at);
        let request = TokenRequest { agent: "phone".to_owned(), mechanism: TokenMechanism::Sha256None, root };
        IssuedToken::new(request, std::time::Duration::from_secs(100), root, || at.into()).unwrap().token
    };
    let token = issue(1000);
    let id = token.id;
    let change = Change::Token(TokenChange::Issued(Box::new(token)));
    assert!(!change.concerns_others());
    let mut account = applied([change.clone()]);
    assert_ne!(account, Account::default(), "so it is stored");
    let record = serde_json::to_string(&account).unwrap();
    assert_eq!(serde_json::from_str::<Account>(&record).unwrap(), account);
    // Nothing but a change of the tokens ends them.
    for change in [login(1, "a", None, 1000), enable(1, "n", 1000), ended(1), Change::Released] {
        account.apply(change);
        assert_eq!(account.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [id]);
    }
    account.apply(Change::Token(TokenChange::Used { id, count: Some(3), at: UnixSecs::new(1001) }));
    assert_eq!(account.tokens.iter().map(|token| (token.count, token.used)).collect::<Vec<_>>(), [(Some(3), true)]);
    let mut removed = account.clone();
    removed.apply(Change::Removed);
    assert!(removed.tokens.is_empty());
    let mut revoked = account.clone();
    revoked.apply(Change::Token(TokenChange::Revoked));
    assert!(revoked.tokens.is_empty() && ids(&revoked) == [1]);
    // Those that have expired long ago are forgotten when the account changes.
    let (week, seen) = (7 * 24 * 60 * 60, |at| Change::Seen { device: DeviceId(1), at: UnixSecs::new(at) });
    account.apply(seen(1099 + week));
    assert!(!account.tokens.is_empty());
    let mut unseen = account.clone();
    unseen.forget_unseen(UnixSecs::new(1100 + week));
    account.apply(seen(1100 + week));
    assert!(account.tokens.is_empty() && unseen.tokens.is_empty());
}

#[test]
fn a_record_without_tokens_opens_and_is_written_as_before() {
    let old =
        r#"{"revision":7,"devices":[{"id":1,"resource":"a","sm_ids":[],"last_seen":3,"open":[]}],"registrations":[]}"#;
    let account: Account = serde_json::from_str(old).unwrap();
    assert!(account.tokens.is_empty() && ids(&account) == [1]);
    assert_eq!(serde_json::to_string(&account).unwrap(), old);
}
