//! Tests of the record of a session.
