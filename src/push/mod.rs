//! Push rules: what a stanza means, whether, when and to whom to notify, and what is said.
