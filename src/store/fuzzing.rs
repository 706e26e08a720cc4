//! Fuzz target: any bytes are a record or an error, and a record that is decoded and encoded says the same.
//!
//! The first byte chooses the codec: `a` account, `r` row of a spool, `s` stanza, `t` tombstone, `w` wake. The version byte follows;
//! for text files, the digits `0` to `9` stand for the versions 0 to 9.

use super::error::StoreError;
use super::schema::{Row, decode_account, encode_account, measure};
use super::values::{Tombstone, Wake};
use crate::jid::BareJid;
use crate::push::account::Account;
use crate::seq::Seq;
use crate::session::queue::Spooled;

/// Decodes a record of the chosen kind.
pub(crate) fn records(data: &[u8]) {
    let Some((codec, record)) = data.split_first() else { return };
    let mut record = record.to_vec();
    if let Some(version) = record.first_mut().filter(|version| version.is_ascii_digit()) {
        *version -= b'0';
    }
    let Ok(account) = BareJid::new("juliet@example.org") else { panic!("an address") };
    match codec {
        b'a' => check_account(&account, &record),
        b'r' => {
            let Some(row) = read(Row::decode(&account, &record), &record) else { return };
            assert_eq!(read(Row::decode(&account, &row.encode()), &row.encode()), Some(row));
        }
        b's' => {
            let _: (u64, bool) = measure(&record);
            let Some(stanza) = read(Spooled::decode(&account, Seq::new(7), &record), &record) else { return };
            let written = stanza.encode();
            assert_eq!(measure(&written), (stanza.cost(), stanza.shared));
            assert_eq!(measure(&record), measure(&written));
            let again = read(Spooled::decode(&account, Seq::new(7), &written), &written);
            assert_eq!(format!("{again:?}"), format!("{:?}", Some(stanza)));
        }
        b't' => {
            let Some(tombstone) = Tombstone::decode(&record) else { return };
            assert_eq!(Tombstone::decode(&tombstone.encode()), Some(tombstone));
        }
        b'w' => {
            let Some(wake) = read(Wake::decode(&account, &record), &record) else { return };
            assert_eq!(read(Wake::decode(&account, &wake.encode()), &wake.encode()), Some(wake));
        }
        _ => {}
    }
}

/// Returns what was decoded. Checks the error of a record that was not.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other error comes from a record")]
fn read<T>(decoded: Result<T, StoreError>, record: &[u8]) -> Option<T> {
    let error = match decoded {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let shown = error.to_string();
    assert!(!shown.is_empty());
    let has_place = match error {
        StoreError::UnknownVersion { version, .. } => record.first() == Some(&version),
        StoreError::Corrupt { at, len, .. } => len == record.len() && at <= len,
        _ => false,
    };
    assert!(has_place, "{shown}");
    None
}

fn check_account(account: &BareJid, record: &[u8]) {
    let Some(state) = read(decode_account(account, record), record) else { return };
    let Ok(written) = encode_account(account, &state) else { panic!("an account that was read can be written") };
    match written {
        Some(written) => {
            let again = read(decode_account(account, &written), &written);
            assert!(again.as_ref() == Some(&state), "{}", written.escape_ascii());
            assert_eq!(again.map(|again| again.revision), Some(state.revision));
        }
        None => assert!(state == Account::default()),
    }
}
