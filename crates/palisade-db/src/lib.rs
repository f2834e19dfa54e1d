//! SQLite and PostgreSQL behind one small interface and one SQL text, for Palisade.
