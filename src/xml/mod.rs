//! Framing and reading of XML streams (RFC 6120 §11).
