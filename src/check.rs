//! Validates a configuration, its certificates and its upstreams for an operator.
