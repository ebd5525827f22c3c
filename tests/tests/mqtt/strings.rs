//! Strings, binary data and integers (1.5).
