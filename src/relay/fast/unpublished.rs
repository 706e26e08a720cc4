//! Changes of an account's tokens that its published record may not have: [`UnpublishedChanges`].

use crate::push::account::Account;
use crate::push::fast::{TokenChange, TokenList};

/// The changes of the tokens of one account.
#[derive(Debug, Default)]
pub(super) struct UnpublishedChanges {
    /// Those that the store has not answered, in the order of their revisions.
    open: Vec<OpenTokenChange>,
    /// Those that the store refused. They are submitted again with the next change. There is one for each token at most, or
    /// one for all.
    refused: Vec<TokenChange>,
}

#[derive(Debug)]
struct OpenTokenChange {
    revision: u64,
    change: TokenChange,
}

impl UnpublishedChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.refused.is_empty()
    }

    /// Returns the newest tokens, given a record.
    pub(super) fn after(&self, record: &Account) -> TokenList {
        let mut tokens = record.tokens.clone();
        let open = self.open.iter().filter(|open| open.revision > record.revision).map(|open| &open.change);
        open.chain(&self.refused).for_each(|change| tokens.apply(change.clone()));
        tokens
    }

    /// Adds a change that the store has accepted.
    pub(super) fn add(&mut self, revision: u64, change: TokenChange) {
        self.open.push(OpenTokenChange { revision, change });
    }

    /// Removes a change that the store has answered.
    pub(super) fn remove(&mut self, revision: u64) -> Option<TokenChange> {
        let at = self.open.iter().position(|open| open.revision == revision)?;
        Some(self.open.remove(at).change)
    }

    /// Keeps a change that the store has refused. A token that is not stored is not valid.
    pub(super) fn refuse(&mut self, change: TokenChange) {
        match &change {
            TokenChange::Issued(_) => return,
            TokenChange::Revoked => self.refused.clear(),
            TokenChange::Used { id, .. } => {
                // The use with the greatest count.
                let other = |known: &TokenChange| match known {
                    TokenChange::Used { id: known, .. } => known != id,
                    TokenChange::Issued(_) | TokenChange::Ended { .. } | TokenChange::Revoked => true,
                };
                self.refused.retain(other);
            }
            TokenChange::Ended { id } => {
                let other = |known: &TokenChange| match known {
                    TokenChange::Used { id: known, .. } | TokenChange::Ended { id: known } => known != id,
                    TokenChange::Issued(_) | TokenChange::Revoked => true,
                };
                self.refused.retain(other);
            }
        }
        self.refused.push(change);
    }

    /// Returns the changes that the store has refused.
    pub(super) fn refused(&self) -> &[TokenChange] {
        &self.refused
    }

    /// Takes the changes that the store has refused.
    pub(super) fn take_refused(&mut self) -> Vec<TokenChange> {
        std::mem::take(&mut self.refused)
    }
}
