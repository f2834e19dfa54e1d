//! Password hashing, tokens, keys and sealing for Palisade. No I/O, no clock, no SQL.
