//! Black-box tests: one binary, one behaviour a file, real peers.
