//! Performs publishes: the choice of transport.
